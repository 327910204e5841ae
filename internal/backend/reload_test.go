package backend

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// holder has a connection until let is closed.
type holder struct {
	let  chan struct{}
	done chan error
}

func hold(t *testing.T, eng loop.Engine, e *Endpoint, id *Identity, n int) (all []holder) {
	t.Helper()
	for range n {
		h := holder{let: make(chan struct{})}
		got := make(chan struct{})
		h.done = startTask(eng, func(task *loop.Task) error {
			conn, err := e.Acquire(task, id, nil, time.Now().Add(patience))
			close(got)
			if err != nil {
				return err
			}
			task.Await(func() { <-h.let })
			conn.Release()
			return nil
		})
		<-got
		all = append(all, h)
	}
	return all
}

func letGo(t *testing.T, all ...holder) {
	t.Helper()
	for _, h := range all {
		close(h.let)
		if err := <-h.done; err != nil {
			t.Error(err)
		}
	}
}

func reload(t *testing.T, b *Backend, change func(*Config)) {
	t.Helper()
	cfg := *b.cfg()
	change(&cfg)
	apply, err := b.Prepare(cfg)
	if err != nil {
		t.Fatal(err)
	}
	apply()
}

// A limit that falls closes what is idle at once and what is in use when it comes back; one that rises serves who waits.
func TestReloadOfLimits(t *testing.T) {
	alice := &Identity{User: "alice", Password: "p"}
	for _, tt := range []struct {
		name string
		id   *Identity
		set  func(c *Config, n int)
	}{
		{"pool size", nil, func(c *Config, n int) { c.PoolSize = n }},
		{"budget", nil, func(c *Config, n int) { c.Budget = n }},
		{"server", nil, func(c *Config, n int) { c.MaxConnections = n }},
		{"user's pool size", alice, func(c *Config, n int) { c.Users = map[string]UserConfig{"alice": {PoolSize: n}} }},
		{"user", alice, func(c *Config, n int) { c.Users = map[string]UserConfig{"alice": {MaxConnections: n}} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bothEngines(t, func(t *testing.T, eng loop.Engine) {
				b := fakePools(t, eng, func(c *Config) { c.AcquireTimeout = patience })
				e := b.Shards()[0].Endpoints()[0]
				open := func() (idle, active int) {
					for _, s := range b.Stats() {
						idle, active = idle+s.Idle, active+s.Active
					}
					return idle, active
				}
				is := func(idle, active int) {
					t.Helper()
					until(t, fmt.Sprintf("%d idle, %d active", idle, active), func() bool { i, a := open(); return i == idle && a == active })
				}
				held := hold(t, eng, e, tt.id, 6)
				letGo(t, held[4:]...)
				is(2, 4)
				reload(t, b, func(c *Config) { tt.set(c, 3) })
				is(0, 4)
				letGo(t, held[3])
				is(0, 3)
				waiting := startTask(eng, func(task *loop.Task) error {
					conn, err := e.Acquire(task, tt.id, nil, time.Time{})
					if err == nil {
						conn.Release()
					}
					return err
				})
				until(t, "somebody waits", func() bool {
					for _, s := range b.Stats() {
						if s.Waiting == 1 {
							return true
						}
					}
					return false
				})
				reload(t, b, func(c *Config) { tt.set(c, 4) })
				if err := <-waiting; err != nil {
					t.Error(err)
				}
				is(1, 3)
				letGo(t, held[:3]...)
				is(4, 0)
				reload(t, b, func(c *Config) { tt.set(c, 1) })
				is(1, 0)
			})
		})
	}
}

// A password takes part in the next login, at once even where the last one was refused.
func TestReloadOfPassword(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		server := serveFake(t, func(f *fakeServer) {
			f.say(wire.AppendAuthenticationCleartextPassword(nil))
			if f.hearPassword() != "good" {
				f.say(wire.AppendErrorResponse(nil, wire.Errorf(wire.InvalidPassword, "no")))
				return
			}
			f.welcome()
			f.serveQueries()
		})
		b := open(t, eng, Config{Database: "d", User: "u", Password: "bad", SSLMode: "disable", Shards: []ShardConfig{{Name: "s", Endpoints: []EndpointConfig{server}}}})
		e := b.Shards()[0].Endpoints()[0]
		acquire := func() (err error) {
			inTask(t, eng, func(task *loop.Task) error {
				var conn *Conn
				if conn, err = e.Acquire(task, nil, nil, time.Time{}); err == nil {
					conn.Release()
				}
				return nil
			})
			return err
		}
		var w *wire.Error
		if err := acquire(); !errors.As(err, &w) {
			t.Fatalf("with a wrong password: %v", err)
		}
		reload(t, b, func(c *Config) { c.Password = "good" })
		if err := acquire(); err != nil {
			t.Error(err)
		}
	})
}

// What cannot change is refused by name, and nothing has changed then; modes and pools of users are those of new sessions.
func TestPrepare(t *testing.T) {
	b := fakePools(t, newEngine(t, "goroutines"), func(c *Config) { c.Users = map[string]UserConfig{"alice": {PoolSize: 2}} })
	alice := b.SharedAs("alice")
	for _, tt := range []struct {
		says   string
		change func(*Config)
	}{
		{"shards and servers cannot change", func(c *Config) { c.Shards = c.Shards[:1] }},
		{"the database cannot change", func(c *Config) { c.Database = "other" }},
		{"the role that logs in cannot change", func(c *Config) { c.User = "other" }},
		{"pool size must be positive", func(c *Config) { c.PoolSize = -1 }},
		{"sslmode", func(c *Config) { c.SSLMode = "perhaps" }},
	} {
		cfg := *b.cfg()
		tt.change(&cfg)
		if _, err := b.Prepare(cfg); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("error %v, want one that says %q", err, tt.says)
		}
	}
	reload(t, b, func(c *Config) {
		c.Mode = Session
		c.Users = map[string]UserConfig{"alice": {PoolSize: 3, Mode: Statement}, "bob": {MaxConnections: 1}}
	})
	got := []any{b.ModeOf("alice"), b.ModeOf("bob"), b.SharedAs("alice") == alice, b.SharedAs("bob") != nil, b.SharedAs("carol") == nil}
	if diff := cmp.Diff([]any{Statement, Session, true, true, true}, got); diff != "" {
		t.Error(diff)
	}
}

// No verb shows a secret.
func TestIdentityIsSilent(t *testing.T) {
	id := &Identity{User: "alice", Password: "secret", Keys: &wire.ClientKeys{ClientKey: []byte("secret"), ServerKey: []byte("secret")}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(verb, id); got != "alice" {
			t.Errorf("%s shows %s", verb, got)
		}
	}
}
