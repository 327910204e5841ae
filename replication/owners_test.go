package replication

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// What somebody else has made under the names of our tables runs nothing as the role that captures: neither what capture writes, nor what
// Drop, RequestSnapshot and RaiseEpoch do. Check says so beforehand.
func TestOwnTablesOfOthers(t *testing.T) {
	onVersions(t, func(t *testing.T, db *database) {
		root, err := pgx.Connect(t.Context(), db.root)
		if err != nil {
			t.Fatal(err)
		}
		defer closeConn(root)
		mallory := "m_" + db.name
		as := func(sqls ...string) {
			t.Helper()
			for _, sql := range sqls {
				if _, err := root.Exec(t.Context(), sql); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
		}
		as(`CREATE ROLE `+mallory, `GRANT CREATE ON DATABASE `+db.name+` TO `+mallory, `GRANT `+mallory+` TO tidemark`)
		defer as(`DROP OWNED BY `+mallory, `DROP ROLE `+mallory)
		db.exec(`CREATE TABLE item (id int PRIMARY KEY)`, `CREATE TABLE trail (who text)`, `GRANT INSERT ON trail TO public`)
		cfg := db.config("item")
		c, err := New(cfg, discard)
		if err != nil {
			t.Fatal(err)
		}

		refused := func(says ...string) {
			t.Helper()
			wantError(t, start(t, cfg).wait(), ErrRefused, says...)
			wantError(t, c.Drop(t.Context()), ErrRefused, says...)
			wantError(t, c.RequestSnapshot(t.Context()), ErrRefused, says...)
			_, err := RaiseEpoch(t.Context(), db.conn, "test")
			wantError(t, err, ErrRefused, says...)
			findings, err := c.Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := refusal("s1", findings); err == nil || !strings.Contains(err.Error(), says[0]) {
				t.Errorf("Check finds %v, want %q", err, says[0])
			}
			if n := db.text(`SELECT count(*)::text FROM trail`); n != "0" {
				t.Fatalf("%s lines of another role's have run as %s", n, db.text(`SELECT min(who) FROM trail`))
			}
		}

		// An empty schema is enough: its owner can drop what is made in it, and make it anew.
		as(`SET ROLE `+mallory, `CREATE SCHEMA tidemark`, `GRANT ALL ON SCHEMA tidemark TO public`)
		refused("schema tidemark belongs to "+mallory, "ALTER SCHEMA tidemark OWNER TO tidemark")
		as(ownTables, `GRANT ALL ON ALL TABLES IN SCHEMA tidemark TO public`,
			`CREATE FUNCTION tidemark.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.trail VALUES (current_user); RETURN NULL; END $$`,
			`CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON tidemark.epoch FOR EACH STATEMENT EXECUTE FUNCTION tidemark.note()`,
			`CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON tidemark.capture FOR EACH STATEMENT EXECUTE FUNCTION tidemark.note()`,
			`RESET ROLE`)
		refused("schema tidemark belongs to "+mallory, "table tidemark.epoch belongs to "+mallory, "table tidemark.capture belongs to "+mallory)
		as(`ALTER SCHEMA tidemark OWNER TO tidemark`)
		refused("table tidemark.capture belongs to " + mallory)

		// What the database's superuser has made beforehand is fine, and so is what a member of our role has.
		as(`DROP SCHEMA tidemark CASCADE`, ownTables, `GRANT ALL ON SCHEMA tidemark TO tidemark`, `GRANT ALL ON ALL TABLES IN SCHEMA tidemark TO tidemark`,
			`ALTER TABLE tidemark.epoch OWNER TO tidemark`, // the publication is made by the table's owner
			`REVOKE `+mallory+` FROM tidemark`, `GRANT tidemark TO `+mallory, `ALTER TABLE tidemark.capture OWNER TO `+mallory)
		start(t, cfg).streaming().stop()
	})
}
