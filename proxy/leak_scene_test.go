package proxy_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

// scene is what the proxy and its servers are about, for a client that has no answer: who waits for what can be seen only while it waits.
func (k *leaks) scene() string {
	var b strings.Builder
	show := func(who string, p *peer, sql string) {
		fmt.Fprintf(&b, "%s: %s\n%s", who, sql, p.play(simpleAction(sql)))
	}
	if p, err := dialPeer(consoleDSN(k.tidemark), nil); err != nil {
		fmt.Fprintf(&b, "the admin database: %v\n", err)
	} else {
		for _, table := range []string{"clients", "servers", "shards"} {
			show("Tidemark", p, "select * from "+table)
		}
		_ = p.conn.Close()
	}
	k.cleaning.Lock()
	defer k.cleaning.Unlock()
	for i, p := range append(append([]*peer{}, k.primaries...), k.replicas...) {
		show(fmt.Sprint("database ", i), p, "select pid, state, wait_event_type, wait_event, now() - state_change as since, query from pg_stat_activity where datname = current_database()")
	}
	for _, name := range k.logs {
		text, err := os.ReadFile(name)
		fmt.Fprintf(&b, "%s: %v\n", name, err)
		for line := range strings.Lines(string(text)) {
			if died.MatchString(line) {
				b.WriteString(line)
			}
		}
	}
	return b.String() + "the proxy's log:\n" + k.log.String()
}

// died is what a server logs of the end of its processes.
var died = regexp.MustCompile(`LOG:  .*(terminated|crash|reinitializing|shutting down)|PANIC:|FATAL:  terminating`)

// recent are the last requests of all clients, as they were answered.
type recent struct {
	mu    sync.Mutex
	lines []string
}

func (r *recent) add(began time.Time, slot int, a action) {
	line := fmt.Sprintf("%s +%v client %d: %.400s\n", began.Format("05.000"), time.Since(began).Round(time.Millisecond), slot, a.text)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines[max(0, len(r.lines)-199):], line)
}

func (r *recent) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "")
}

// tail keeps the last lines of a log that are of interest.
type tail struct {
	mu    sync.Mutex
	lines []string
}

func (l *tail) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if strings.Contains(string(b), "level=WARN") || strings.Contains(string(b), "level=ERROR") {
		l.lines = append(l.lines[max(0, len(l.lines)-99):], string(b))
	}
	return len(b), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "")
}
