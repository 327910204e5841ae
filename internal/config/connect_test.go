package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
)

// What ConnString writes, pgconn reads back, whatever characters a password has.
func TestConnString(t *testing.T) {
	c := &Config{Database: Database{ServerName: "my shop", User: `o'neill`, Password: NewSecret(`a\b' c=d`), TLS: "disable"}}
	parsed, err := pgconn.ParseConfig(c.PrimaryConnString(Shard{Primary: &Endpoint{Host: "db1", Port: 5432}, Replicas: []Endpoint{{Host: "/run/pg", Port: 5433}}}))
	if err != nil {
		t.Fatal(err)
	}
	type login struct {
		Host                     string
		Port                     uint16
		Database, User, Password string
		Other                    string
	}
	got := login{parsed.Host, parsed.Port, parsed.Database, parsed.User, parsed.Password, parsed.Fallbacks[0].Host}
	if diff := cmp.Diff(login{"db1", 5432, "my shop", `o'neill`, `a\b' c=d`, "/run/pg"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if parsed.ValidateConnect == nil {
		t.Error("any server would do, expected one that takes writes")
	}
}
