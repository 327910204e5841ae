package proxy_test

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// shrink leaves out what the failure does not need, as far as that goes in a minute.
func (k *leaks) shrink(life history) (history, string) {
	until := time.Now().Add(time.Minute)
	diff, _ := k.replay(life)
	if diff == "" || len(life.actions) == 0 {
		return life, diff
	}
	last := life.actions[len(life.actions)-1]
	for size := max(1, len(life.actions)/2); ; size /= 2 {
		for i := 0; i < len(life.actions) && time.Now().Before(until); {
			less := life
			less.actions = slices.Concat(life.actions[:i], life.actions[min(i+size, len(life.actions)):])
			if d, _ := k.replay(less); strings.HasPrefix(d, "behind "+last.text) {
				life, diff = less, d
			} else {
				i += size
			}
		}
		if size <= 1 {
			return life, diff
		}
	}
}

// replay does it all again, with a client that sets other things in between: what is lost or leaks shows. It ends at the first
// difference; short says that this is a known divergence, at which request, or that it could not be told.
func (k *leaks) replay(life history) (diff, short string) {
	p, err := k.open(life.slot, life.options)
	if err != nil {
		return err.Error(), ""
	}
	defer p.end()
	for i, a := range life.actions {
		if i%2 == 0 && !p.aside(k.tidemark) {
			return "", "another client cannot connect before " + a.text
		}
		if diff, diverged := p.do(a); diff != "" {
			return diff, ""
		} else if diverged {
			return "", divergedBehind + a.text
		}
	}
	return "", ""
}

const divergedBehind = "a known divergence behind "

// pair is a client of Tidemark and its private PostgreSQL.
type pair struct {
	tidemark, plain *peer
	keys            [][]int // of the shards
	replicas        bool
	life            history // so far
}

func (k *leaks) open(slot int, options map[string]string) (*pair, error) {
	if err := k.clean(slot); err != nil {
		return nil, err
	}
	t, err := dialPeer(k.tidemark, options)
	if err != nil {
		return nil, fmt.Errorf("Tidemark: %w", err)
	}
	p, err := dialPeer(k.plain, options)
	if err != nil {
		_ = t.conn.Close()
		return nil, fmt.Errorf("PostgreSQL: %w", err)
	}
	return &pair{tidemark: t, plain: p, keys: k.keys, replicas: len(k.replicas) > 0, life: history{slot: slot, options: options}}, nil
}

// do has both do the same and says what differs. Tidemark always comes first: then no two clients can wait for each other, one
// here and one there.
func (p *pair) do(a action) (diff string, diverged bool) {
	status := p.plain.status
	defer func() { p.life.actions = append(p.life.actions, a) }()
	got, want := p.tidemark.play(a), p.plain.play(a)
	if a.leaves {
		return "", false
	}
	if got != want {
		if m := (&moment{life: p.life, keys: p.keys, replicas: p.replicas, status: status, a: a, got: got, want: want}); m.diverges() {
			return "", true
		}
		return fmt.Sprintf("behind %s\ngot\n%swant\n%s", a.text, got, want), false
	}
	for _, name := range []map[string]string{p.tidemark.params, p.plain.params} {
		for name := range name {
			if strings.HasPrefix(name, "tidemark.") {
				continue
			}
			if got, want := p.tidemark.params[name], p.plain.params[name]; got != want {
				return fmt.Sprintf("behind %s the client was told that %s is %q, want %q", a.text, name, got, want), false
			}
		}
	}
	return "", false
}

func (p *pair) end() {
	_ = p.tidemark.conn.Close()
	_ = p.plain.conn.Close()
}

// aside leaves other settings in one or two server connections.
func (p *pair) aside(dsn string) bool {
	x, err := dialPeer(dsn, map[string]string{"application_name": "aside"})
	if err != nil {
		return false
	}
	defer func() { _ = x.conn.Close() }()
	x.play(simpleAction("set work_mem = '99MB'"))
	x.play(simpleAction("set my.x = 'aside'; set datestyle = 'German'; set role leak_b"))
	return true
}

// history is what a client did since it connected.
type history struct {
	slot    int
	options map[string]string
	actions []action
}

func (h history) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "  connect %v\n", h.options)
	for _, a := range h.actions {
		fmt.Fprintf(&b, "  %s\n", a.text)
	}
	return b.String()
}
