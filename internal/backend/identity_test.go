package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

// onServer runs statements as the superuser.
func onServer(t *testing.T, s *testcontainers.Server, statements ...string) string {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	last := ""
	for _, sql := range statements {
		rows, err := conn.Query(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		for rows.Next() {
			v, err := rows.Values()
			if err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
			if len(v) > 0 {
				last = fmt.Sprint(v[0])
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	return last
}

// role makes a login role on the first shard's primary, with a password stored as a SCRAM verifier, and returns its name.
func role(t *testing.T, s *testcontainers.Server, password string) string {
	t.Helper()
	name := fmt.Sprintf("role_%d", time.Now().UnixNano())
	onServer(t, s, "create role "+name+" login password '"+password+"'")
	t.Cleanup(func() { onServer(t, s, "drop role "+name) })
	return name
}

// recoverKeys logs a client in as Tidemark would, by the verifier that the server stores, and returns the keys that this leaves.
func recoverKeys(t *testing.T, s *testcontainers.Server, user, password string) *wire.ClientKeys {
	t.Helper()
	v, err := wire.ParseVerifier(onServer(t, s, "select rolpassword from pg_authid where rolname = '"+user+"'"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := wire.NewSCRAM(v)
	if err != nil {
		t.Fatal(err)
	}
	client, err := wire.NewSCRAMClient(user, password, nil)
	if err != nil {
		t.Fatal(err)
	}
	challenge, err := server.First(wire.SASLInitial{Mechanism: []byte(wire.MechanismSCRAM), Response: client.First()})
	if err != nil {
		t.Fatal(err)
	}
	final, err := client.Final(challenge)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.Final(final); err != nil {
		t.Fatal(err)
	}
	if server.Keys() == nil {
		t.Fatal("the login left no keys")
	}
	return server.Keys()
}

func asUser(task *loop.Task, e *Endpoint, id *Identity) (string, error) {
	conn, err := e.Acquire(task, id, nil, time.Time{})
	if err != nil {
		return "", err
	}
	defer conn.Release()
	got, err := query(task, conn, "select session_user || current_setting('application_name')") // which is empty
	return strings.Join(got, ""), err
}

// A server that refuses a role for the role's own limit, and not for its own, is told apart.
func TestConnectionLimitOfARole(t *testing.T) {
	eng := newEngine(t, "epoll")
	c := servers(t)
	s := c.Shards[0].Primary
	user := role(t, s, "one")
	onServer(t, s, "alter role "+user+" connection limit 0")
	e := primaryOf(t, start(t, eng, configOf(c, "postgres")))
	inTask(t, eng, func(task *loop.Task) error {
		_, err := asUser(task, e, &Identity{User: user, Password: "one"})
		var w *wire.Error
		if !errors.As(err, &w) || w.Code != wire.TooManyConnections || !strings.Contains(w.Hint, "ALTER ROLE") {
			return fmt.Errorf("got %w, want 53300 with a hint about the role's limit", err)
		}
		return nil
	})
}

// Each identity has its pool, whose connections log in by it: by password, by SCRAM keys alone, or as the shared role.
func TestIdentities(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		c := servers(t)
		s := c.Shards[0].Primary
		user := role(t, s, "one")
		cfg := configOf(c, "postgres")
		cfg.Users = map[string]UserConfig{"reports": {PoolSize: 1}}
		b := start(t, eng, cfg)
		e := primaryOf(t, b)
		byKeys := &Identity{User: user, Keys: recoverKeys(t, s, user, "one")}
		inTask(t, eng, func(task *loop.Task) error {
			for _, tt := range []struct {
				id   *Identity
				want string
			}{
				{nil, testcontainers.AppUser},
				{byKeys, user},
				{&Identity{User: user, Password: "one"}, user},
				{b.SharedAs("reports"), testcontainers.AppUser},
				{b.SharedAs("nobody"), testcontainers.AppUser},
			} {
				if got, err := asUser(task, e, tt.id); err != nil || got != tt.want {
					return fmt.Errorf("%v: logged in as %q, %w", tt.id, got, err)
				}
			}
			return nil
		})
		users := map[string]string{}
		for _, st := range b.Stats() {
			if st.Opened > 0 {
				users[st.User] = fmt.Sprint(st.Role, " ", st.Size, " ", st.Opened)
			}
		}
		if want := fmt.Sprint(map[string]string{testcontainers.AppUser: "tidemark 20 1", user: user + " 20 1", "reports": "tidemark 1 1"}); fmt.Sprint(users) != want {
			t.Errorf("pools %v, want %v", users, want)
		}
	})
}

// When a password has changed, whoever waits is told 28P01; newer credentials take over, and older ones do not come back.
func TestPasswordChanges(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		c := servers(t)
		s := c.Shards[0].Primary
		user := role(t, s, "old")
		cfg := configOf(c, "postgres")
		b := start(t, eng, cfg)
		e := primaryOf(t, b)
		old := &Identity{User: user, Keys: recoverKeys(t, s, user, "old")}
		b.Admit(old)
		onServer(t, s, "alter role "+user+" password 'new'")
		var waiting []chan error
		for range 3 {
			waiting = append(waiting, startTask(eng, func(task *loop.Task) error { _, err := asUser(task, e, old); return err }))
		}
		for _, done := range waiting {
			if err := <-done; wire.SQLSTATE(err) != wire.InvalidPassword {
				t.Errorf("old keys: %v, want 28P01", err)
			}
		}
		if !e.Healthy() {
			t.Error("a user's wrong password took the endpoint out for all")
		}
		now := &Identity{User: user, Keys: recoverKeys(t, s, user, "new")}
		b.Admit(now)
		inTask(t, eng, func(task *loop.Task) error {
			for _, id := range []*Identity{now, old, now} { // a session of old goes on by the credentials that hold
				if got, err := asUser(task, e, id); err != nil || got != user {
					return fmt.Errorf("newer keys: %q, %w", got, err)
				}
			}
			return nil
		})
	})
}

// A role that was dropped and made anew under its name is another one, and its client gets no connection of the old one: that
// can say no more than "invalid role OID".
func TestRoleIsMadeAnew(t *testing.T) {
	bothEngines(t, func(t *testing.T, eng loop.Engine) {
		c := servers(t)
		s := c.Shards[0].Primary
		user := role(t, s, "old")
		b := start(t, eng, configOf(c, "postgres"))
		e := primaryOf(t, b)
		use := func(password string) {
			id := &Identity{User: user, Keys: recoverKeys(t, s, user, password)}
			b.Admit(id)
			for range 2 { // the second time over an idle connection
				inTask(t, eng, func(task *loop.Task) error {
					if got, err := asUser(task, e, id); err != nil || got != user {
						return fmt.Errorf("%q, %w", got, err)
					}
					return nil
				})
			}
		}
		use("old")
		onServer(t, s, "drop role "+user)
		onServer(t, s, "create role "+user+" login password 'new'")
		use("new")
	})
}

// Keys are of no use to a server that asks for something else, or that does not prove itself; the error says what to do.
func TestKeysOnly(t *testing.T) {
	eng := newEngine(t, "goroutines")
	c := servers(t)
	s := c.Shards[0].Primary
	user := role(t, s, "one")
	keys := recoverKeys(t, s, user, "one")
	for _, tt := range []struct {
		name, code string
		speak      func(f *fakeServer)
	}{
		{"clear password", wire.InvalidAuthorizationSpecification, func(f *fakeServer) { f.say(wire.AppendAuthenticationCleartextPassword(nil)) }},
		{"ok too early", wire.InvalidAuthorizationSpecification, func(f *fakeServer) {
			f.say(wire.AppendAuthenticationSASL(nil, wire.MechanismSCRAM))
			f.hear()
			f.say(wire.AppendAuthenticationOK(nil))
		}},
		{"unknown mechanism", wire.ConnectionFailure, func(f *fakeServer) { f.say(wire.AppendAuthenticationSASL(nil, "OTHER")) }},
		{"huge message", wire.ConnectionFailure, func(f *fakeServer) { f.say([]byte("R\x7f\xff\xff\xff")) }},
		{"silence", wire.ConnectionFailure, func(f *fakeServer) { f.hear() }},
		{"hang-up", wire.ConnectionFailure, func(*fakeServer) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			timeout := patience
			if tt.name == "silence" { // which nothing else ends
				timeout = time.Second
			}
			cfg := Config{
				Database: "postgres", User: "u", SSLMode: "disable", ConnectTimeout: timeout, Fall: 100,
				Shards: []ShardConfig{{Name: "s", Endpoints: []EndpointConfig{serveFake(t, tt.speak)}}},
			}
			e := open(t, eng, cfg).Shards()[0].Endpoints()[0]
			inTask(t, eng, func(task *loop.Task) error {
				_, err := e.Acquire(task, &Identity{User: user, Keys: keys}, nil, time.Time{})
				var w *wire.Error
				if !errors.As(err, &w) || w.Code != tt.code || w.Hint == "" {
					return fmt.Errorf("got %v, want %s with a hint", err, tt.code)
				}
				return nil
			})
		})
	}
}

// Pools of users who have left are forgotten, with their credentials, and made again when they come back.
func TestPoolsAreSwept(t *testing.T) {
	eng := newEngine(t, "epoll")
	c := servers(t)
	user := role(t, c.Shards[0].Primary, "one")
	cfg := configOf(c, "postgres")
	cfg.IdleTime, cfg.MinIdle = time.Minute, 1
	b := start(t, eng, cfg)
	e := primaryOf(t, b)
	id := &Identity{User: user, Password: "one"}
	use := func() {
		inTask(t, eng, func(task *loop.Task) error { _, err := asUser(task, e, id); return err })
	}
	use()
	p := e.own.get(poolKey{user: user})
	now := time.Now()
	p.sweep(now)
	e.sweepPools(now.Add(time.Hour))
	if e.own.get(poolKey{user: user}) == nil {
		t.Fatal("a pool with connections was forgotten")
	}
	p.mu.Lock()
	p.usedAt = now.Add(-time.Hour) // as if nobody had used it since
	p.mu.Unlock()
	until(t, "the connections are closed", func() bool {
		now = now.Add(time.Hour)
		p.sweep(now)
		return p.total.Load() == 0
	})
	e.sweepPools(now.Add(time.Hour))
	if e.own.get(poolKey{user: user}) != nil || len(b.Stats()) != 6 {
		t.Fatalf("the empty pool is still there, among %d", len(b.Stats()))
	}
	use()
}
