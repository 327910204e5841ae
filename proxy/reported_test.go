package proxy_test

import (
	"testing"

	"github.com/tidemarkdb/tidemark/testcontainers"
)

// A server connection that could not be brought to a session's settings has told its client nothing of those that it has.
func TestToldBehindSettingsThatCannotBeMade(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	super := connect(t, f.cluster.Shards[0].Primary.DSN(f.database))
	engines(t, func(t *testing.T, engineName string) {
		dsn, role := f.start(t, engineName), "told_"+engineName
		a, b := connect(t, dsn), connect(t, dsn)
		exec(t, super, "create role "+role)
		exec(t, super, "grant "+role+" to "+testcontainers.AppUser)
		exec(t, a, "set datestyle = 'German'")
		exec(t, a, "set role "+role)
		exec(t, super, "drop role "+role)
		exec(t, b, "select 1")
		if _, err := a.Exec(t.Context(), "select 1"); code(err) != "22023" {
			t.Fatalf("under a role that is gone: %v", err)
		}
		exec(t, a, "discard all")
		if got := a.PgConn().ParameterStatus("DateStyle"); got != "ISO, MDY" {
			t.Errorf("the client was told that datestyle is %q, want ISO, MDY", got)
		}
	})
}
