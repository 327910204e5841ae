package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const reloadBase = `
listen: 127.0.0.1:6432
database: {name: shop, user: tidemark, password: secret-one}
users:
  - {name: app, password: secret-two}
shards:
  - {name: s1, primary: {host: a}}
`

func TestReload(t *testing.T) {
	for _, test := range []struct {
		name, from, to string
		changes        []string
		says           []string // of the error; nil: it is taken
	}{
		{name: "nothing", from: "a", to: "a"},
		{name: "a comment", from: "listen:", to: "# moved\nlisten:"},
		{name: "a default spelt out", from: "listen:", to: "drain_timeout: 10s\nlisten:"},
		{name: "a password", from: "secret-two", to: "secret-three", changes: []string{"users[0].password [secret]"}},
		{name: "limits", from: "listen:", to: "clients: {max: 5}\nlog: {level: debug}\nlisten:", changes: []string{"clients.max 5", "log.level debug"}},
		{name: "one more user", from: "secret-two}", to: "secret-two}\n  - {name: new, password: x}", changes: []string{"users[1].name new", "users[1].password [secret]"}},
		{name: "admins", from: "listen:", to: "admin: {users: [app]}\nlisten:", changes: []string{"admin.users[0] app"}},
		{name: "the address", from: "6432", to: "6433", says: []string{"needs a restart, because of listen", "shop.yaml:2: listen: it cannot change"}},
		{name: "another shard, and a user", from: "host: a}}", to: "host: a}}\n  - {name: s2, primary: {host: b}}\nadmin: {users: [app]}", says: []string{"because of shards[1].name, shards[1].primary.host, shards[1].primary.port"}},
		{name: "a secret of the servers", from: "secret-one", to: "secret-four", changes: []string{"database.password [secret]"}},
		{name: "pools", from: "listen:", to: "pool: {size: 7, mode: session}\nlisten:", changes: []string{"pool.mode session", "pool.size 7"}},
		{name: "traces", from: "listen:", to: "tracing: {endpoint: 'http://c:4318', headers: {key: secret-five}}\nlisten:", changes: []string{
			"tracing.endpoint [secret]", "tracing.headers.key [secret]", "tracing.query_text false", "tracing.sample 0", "tracing.service tidemark", "tracing.timeout 10s",
		}},
		{name: "the role that logs in", from: "user: tidemark", to: "user: other", says: []string{"because of database.user"}},
		{name: "a mistake", from: "listen:", to: "lisen:", says: []string{"shop.yaml:2:1: lisen: unknown key"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "shop.yaml")
			write := func(text string) {
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write(reloadBase)
			c, err := Load(file)
			if err != nil {
				t.Fatal(err)
			}
			write(strings.Replace(reloadBase, test.from, test.to, 1))
			next, changes, err := c.Reload()
			if (err != nil) != (test.says != nil) || (next == nil) != (err != nil) {
				t.Fatalf("Reload() = %v, %v", next, err)
			}
			for _, s := range test.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("error %q lacks %q", err, s)
				}
			}
			if err != nil && strings.Contains(err.Error(), "secret-") {
				t.Errorf("the error tells a secret: %v", err)
			}
			var problems Problems
			var restart *RestartError
			if err != nil && !errors.As(err, &problems) && !errors.As(err, &restart) {
				t.Errorf("error of type %T", err)
			}
			var got []string
			for _, e := range changes {
				got = append(got, e.Key+" "+e.Value)
			}
			if diff := cmp.Diff(test.changes, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Every pattern of keys that a reload takes means some key, so that a renamed key cannot become one that needs a restart.
func TestLiveKeysExist(t *testing.T) {
	var all []string
	var walk func(path string, fields []field)
	walk = func(path string, fields []field) {
		for _, f := range fields {
			at := join(path, f.key)
			all = append(all, at)
			if f.into.beneath != nil {
				suffix, below := f.into.beneath()
				walk(at+suffix, below)
			}
		}
	}
	walk("", new(Config).fields())
	for _, l := range append(append([]string(nil), liveKeys...), restartKeys...) {
		found := false
		for _, key := range all {
			found = found || key == l || strings.HasPrefix(key, l)
		}
		if !found {
			t.Errorf("no key %s", l)
		}
	}
}
