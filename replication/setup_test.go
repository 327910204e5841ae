package replication

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

func TestCheck(t *testing.T) {
	onVersions(t, func(t *testing.T, db *database) {
		pg18 := strings.HasSuffix(t.Name(), "pg18")
		db.exec(`CREATE TABLE good (id int PRIMARY KEY)`, `ALTER TABLE good REPLICA IDENTITY FULL`,
			`CREATE TABLE "Plain" (id int PRIMARY KEY)`,
			`CREATE TABLE nokey (id int)`, `ALTER TABLE nokey REPLICA IDENTITY FULL`,
			`CREATE TABLE later (id int PRIMARY KEY DEFERRABLE)`, `ALTER TABLE later REPLICA IDENTITY FULL`,
			`CREATE UNLOGGED TABLE loose (id int PRIMARY KEY)`, `ALTER TABLE loose REPLICA IDENTITY FULL`,
			`CREATE TABLE gen (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)`, `ALTER TABLE gen REPLICA IDENTITY FULL`,
			`CREATE VIEW v AS SELECT 1`,
			`CREATE TABLE part (id int PRIMARY KEY) PARTITION BY RANGE (id)`, `CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (1) TO (9)`,
			`CREATE TABLE split (id int PRIMARY KEY, "By" int)`, `ALTER TABLE split REPLICA IDENTITY FULL`)
		cfg := db.config("good", `"Plain"`, "nokey", "later", "loose", "gen", "v", "part", "absent", "split")
		cfg.ShardKeys = map[string]string{"good": "id", "split": "By", "nokey": "id", "absent": "id"}
		c, err := New(cfg, discard)
		if err != nil {
			t.Fatal(err)
		}
		findings, err := c.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range findings {
			s := f.String()
			if f.Warning {
				s = "warning: " + s
			}
			got = append(got, s)
		}
		identity := "REPLICA IDENTITY is not FULL: old rows and unchanged large values would be missing; ALTER TABLE "
		want := []string{
			"public.Plain: " + identity + `"public"."Plain" REPLICA IDENTITY FULL`,
			`public.nokey: it has no primary key; ALTER TABLE "public"."nokey" ADD PRIMARY KEY (…)`,
			"public.later: its primary key is deferrable; make the constraint NOT DEFERRABLE",
			`public.loose: unlogged and temporary tables are not in WAL; ALTER TABLE "public"."loose" SET LOGGED`,
			`public.gen: column twice is generated, and this server (before PostgreSQL 18) does not publish such columns; ALTER TABLE "public"."gen" ALTER COLUMN "twice" DROP EXPRESSION, or drop the column and compute it in a view`,
			"public.v: it is not a table (relkind v); capture the tables behind it",
			"public.part_1: " + identity + `"public"."part_1" REPLICA IDENTITY FULL`,
			"warning: public.part: TRUNCATE, DETACH or DROP of a single partition is not in the stream; DELETE its rows first, or truncate the whole table; new partitions need REPLICA IDENTITY FULL too",
			"public.absent: the table does not exist; create it, or remove it from the configuration",
			`public.split: its primary key does not contain the shard key By: two shards could hold, or have held, a row of the same key; ALTER TABLE "public"."split" DROP CONSTRAINT "split_pkey", ADD PRIMARY KEY ("By", "id")`,
		}
		if pg18 {
			want = slices.DeleteFunc(want, func(s string) bool { return strings.HasPrefix(s, "public.gen") })
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if db.text(`SELECT (to_regnamespace('tidemark') IS NULL)::text`) != "true" {
			t.Error("Check has changed the database")
		}

		cfg.FixReplicaIdentity = false
		wantError(t, start(t, cfg).wait(), ErrRefused, `ALTER TABLE "public"."Plain" REPLICA IDENTITY FULL`, "nokey", "absent")
	})
}

// Nothing that capture asks runs what users have made in a schema of the search_path, as functions and operators of names like
// PostgreSQL's own that would fit better.
func TestSetupBesideOperators(t *testing.T) {
	db := newDatabase(t, "18")
	db.exec(`CREATE TYPE mood AS ENUM ('fine')`, `CREATE TABLE item (id int PRIMARY KEY, m mood, r regclass, ms mood[])`, `INSERT INTO item VALUES (1, 'fine', 'item', '{fine}')`)
	for _, f := range []string{
		"unnest(oid[]) RETURNS SETOF oid", "unnest(int2[]) RETURNS SETOF int2", "format_type(oid, text) RETURNS text",
		"max(smallint) RETURNS smallint", "pg_relation_size(regclass) RETURNS bigint", "joined(name, text) RETURNS text",
	} {
		db.exec(`CREATE FUNCTION public.` + f + ` LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a function of the user''s own'; END $$`)
	}
	db.exec(`CREATE OPERATOR public.|| (LEFTARG = name, RIGHTARG = text, FUNCTION = public.joined)`)
	cfg := db.config("item")
	c, err := New(cfg, discard)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Check(t.Context()); err != nil {
		t.Error(err)
	}
	r := start(t, cfg).streaming()
	db.exec(`INSERT INTO item VALUES (2, 'fine', 'item', '{fine}')`)
	r.reach(db.mark())
	wantRows(t, "item", r.live("public.item"), map[string]string{"1": "1\x1ffine\x1fitem\x1f{fine}\x1f", "2": "2\x1ffine\x1fitem\x1f{fine}\x1f"})
	for _, change := range r.changes("public.item") {
		var types []string
		for _, col := range change.Relation.Columns {
			types = append(types, col.Type)
		}
		if diff := cmp.Diff([]string{"integer", "mood", "regclass", "mood[]"}, types); diff != "" {
			t.Errorf("types (-want +got):\n%s", diff)
		}
	}
	r.stop()
	if err := c.Drop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestGeneratedColumns(t *testing.T) {
	db := newDatabase(t, "18")
	db.exec(`CREATE TABLE gen (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, v text)`, `INSERT INTO gen VALUES (1, DEFAULT, 'a')`)
	r := start(t, db.config("gen")).streaming()
	db.exec(`INSERT INTO gen VALUES (2, DEFAULT, 'b')`, `UPDATE gen SET id = 10 WHERE id = 1`)
	r.reach(db.mark())
	want := map[string]string{"10": "10\x1f20\x1fa\x1f", "2": "2\x1f4\x1fb\x1f"}
	wantRows(t, "gen", r.live("public.gen"), want)
	r.stop()

	db.exec(`ALTER TABLE gen DROP COLUMN twice`, `ALTER TABLE gen ADD COLUMN thrice int GENERATED ALWAYS AS (id * 3) VIRTUAL`)
	wantError(t, start(t, db.config("gen")).wait(), ErrRefused, "thrice", "virtual")
}

func TestServerThatCannot(t *testing.T) {
	db := newDatabase(t, "15")
	db.exec(`CREATE TABLE item (id int PRIMARY KEY)`)
	root, err := pgx.Connect(t.Context(), db.root)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(root)
	if _, err := root.Exec(t.Context(), `CREATE ROLE r_`+db.name+` LOGIN PASSWORD 'x'`); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := root.Exec(context.Background(), `DROP ROLE r_`+db.name); err != nil {
			t.Error(err)
		}
	}()
	cfg := db.config("item")
	cfg.ConnString = strings.Replace(cfg.ConnString, "tidemark:tidemark@", "r_"+db.name+":x@", 1)
	c, err := New(cfg, discard)
	if err != nil {
		t.Fatal(err)
	}
	findings, err := c.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprint(findings); !strings.Contains(s, "may not replicate; ALTER ROLE") {
		t.Errorf("findings %s do not say that the role may not replicate", s)
	}
	cfg.ConnString = strings.Replace(cfg.ConnString, ":x@", ":secret@", 1)
	err = start(t, cfg).wait()
	if err == nil || sqlState(err) != "28P01" {
		t.Errorf("wrong password gives %v, want SQLSTATE 28P01", err)
	}
	if strings.Contains(fmt.Sprint(err), "secret") {
		t.Errorf("the password is in the error: %v", err)
	}
}

// Whatever would leave a gap stops capture with an error that says why; with permission it starts over in a new epoch, and what was
// deleted in the gap is swept: the sink is the same.
func TestNeverASilentGap(t *testing.T) {
	cases := []struct {
		name   string
		breaks func(db *database, cfg *Config)
		says   string
	}{
		{"slot dropped", func(db *database, cfg *Config) {
			db.exec(`SELECT pg_drop_replication_slot('` + cfg.Slot + `')`)
		}, "has vanished"},
		{"table added", func(db *database, cfg *Config) {
			db.exec(`CREATE TABLE more (id int PRIMARY KEY)`, `INSERT INTO more VALUES (1)`)
			cfg.Tables = append(cfg.Tables, "more")
		}, "table public.more was added"},
		{"table created again", func(db *database, _ *Config) {
			db.exec(`DROP TABLE item`, `CREATE TABLE item (id int PRIMARY KEY, v text)`)
		}, "created again"},
		{"publication dropped", func(db *database, _ *Config) {
			db.exec(`DROP PUBLICATION tidemark`)
		}, "publication tidemark has vanished"},
		{"table left the publication", func(db *database, _ *Config) {
			db.exec(`ALTER PUBLICATION tidemark DROP TABLE item`)
		}, "no longer holds all of table public.item"},
		{"another cluster", func(db *database, _ *Config) {
			db.exec(`UPDATE tidemark.capture SET system_identifier = '1'`)
		}, "another cluster"},
		{"asked for", func(db *database, cfg *Config) {
			c, err := New(*cfg, discard)
			if err != nil {
				db.t.Fatal(err)
			}
			if err := c.RequestSnapshot(db.t.Context()); err != nil {
				db.t.Fatal(err)
			}
		}, ""},
	}
	for _, version := range versions {
		for _, c := range cases {
			t.Run("pg"+version+"/"+c.name, func(t *testing.T) {
				db := newDatabase(t, version)
				db.exec(`CREATE TABLE item (id int PRIMARY KEY, v text)`, `INSERT INTO item VALUES (1, 'a'), (2, 'b')`)
				cfg := db.config("item")
				r := start(t, cfg).streaming()
				db.exec(`INSERT INTO item VALUES (3, 'c')`)
				r.reach(db.mark())
				r.stop()
				c.breaks(db, &cfg)
				db.exec(`DELETE FROM item WHERE id = 2`, `INSERT INTO item VALUES (4, 'd')`)

				if c.says != "" {
					wantError(t, start(t, cfg).wait(), ErrResnapshotNeeded, c.says)
				}
				cfg.Resnapshot = true
				again := startInto(t, cfg, r.ledger).streaming()
				if e := again.Level().Epoch; e != 2 {
					t.Errorf("epoch is %d, want 2", e)
				}
				db.exec(`INSERT INTO item VALUES (5, 'e')`)
				again.reach(db.mark())
				wantRows(t, "item", again.live("public.item"), db.rows("item", "id"))
				again.stop()

				// The permission is not a wish: nothing is read again without need.
				third := start(t, cfg).streaming()
				db.exec(`INSERT INTO item VALUES (6, 'f')`)
				third.reach(db.mark())
				if got := brief(third.changes("public.item")); len(got) > 2 || strings.Contains(fmt.Sprint(got), " r ") {
					t.Errorf("the third run brought %v, want only what is new", got)
				}
			})
		}
	}
}

func TestForeignSlotIsRefused(t *testing.T) {
	db := newDatabase(t, "18")
	db.exec(`CREATE TABLE item (id int PRIMARY KEY)`)
	cfg := db.config("item")
	db.exec(`SELECT pg_create_logical_replication_slot('` + cfg.Slot + `', 'pgoutput')`)
	wantError(t, start(t, cfg).wait(), ErrRefused, "tidemark.capture knows nothing of it")
}

// A table that leaves the configuration needs nothing; when it comes back its gap is noticed.
func TestTableRemovedAndBack(t *testing.T) {
	db := newDatabase(t, "18")
	db.exec(`CREATE TABLE item (id int PRIMARY KEY)`, `CREATE TABLE more (id int PRIMARY KEY)`)
	start(t, db.config("item", "more")).streaming().stop()
	r := start(t, db.config("item")).streaming()
	db.exec(`INSERT INTO more VALUES (1)`, `INSERT INTO item VALUES (1)`)
	r.reach(db.mark())
	if n := len(r.changes("public.more")); n != 0 {
		t.Errorf("%d changes of a table that is not captured", n)
	}
	r.stop()
	wantError(t, start(t, db.config("item", "more")).wait(), ErrResnapshotNeeded, "public.more was added")
}

// Epochs are raised in stream order: what commits before the row has the old one, what commits after it the new one, also when
// the stream is read again from a position between them.
func TestEpochFollowsTheStream(t *testing.T) {
	onVersions(t, func(t *testing.T, db *database) {
		db.exec(`CREATE TABLE item (id int PRIMARY KEY)`)
		cfg := db.config("item")
		cfg.MinEpoch = 6 // as if consumers had seen more than this shard remembers
		r := start(t, cfg).streaming()
		r.reach(db.mark())
		r.stop()

		raise := func() {
			if _, err := RaiseEpoch(t.Context(), db.conn, "test"); err != nil {
				t.Fatal(err)
			}
		}
		db.exec(`INSERT INTO item VALUES (1)`)
		raise()
		db.exec(`INSERT INTO item VALUES (2)`)
		raise()
		db.exec(`INSERT INTO item VALUES (3)`)

		epochs := func(r *running) map[string]lsn.Epoch {
			out := map[string]lsn.Epoch{}
			txs, _ := r.published()
			for _, tx := range txs {
				for _, c := range tx.Changes {
					out[string(c.key())] = tx.Epoch
				}
			}
			return out
		}
		want := map[string]lsn.Epoch{"1": 7, "2": 8, "3": 9}

		// Nothing is acknowledged at first, so everything comes again.
		l := newLedger()
		l.hold = true
		r = startInto(t, cfg, l)
		r.until("three changes", func() bool { return len(r.changes("public.item")) == 3 })
		r.stop()
		if diff := cmp.Diff(want, epochs(r)); diff != "" {
			t.Errorf("first reading (-want +got):\n%s", diff)
		}
		// Then only the first two, so that the next worker begins between the second raise's neighbours.
		l = newLedger()
		l.hold = true
		cfg.StatusInterval = 10 * time.Millisecond
		r = startInto(t, cfg, l)
		r.until("three changes", func() bool { return len(r.changes("public.item")) == 3 })
		if diff := cmp.Diff(want, epochs(r)); diff != "" {
			t.Errorf("second reading (-want +got):\n%s", diff)
		}
		txs, _ := r.published()
		r.Acked(txs[1].End)
		if got := r.Level(); got != (lsn.Mark{Epoch: 8, LSN: txs[1].End}) {
			t.Errorf("level is %+v, want epoch 8 at %s", got, txs[1].End)
		}
		r.stop()
		r = start(t, cfg)
		r.until("the third change", func() bool { return len(r.changes("public.item")) >= 1 })
		r.reach(db.mark())
		if diff := cmp.Diff(map[string]lsn.Epoch{"3": 9}, epochs(r)); diff != "" {
			t.Errorf("third reading (-want +got):\n%s", diff)
		}
		r.stop()
		r = start(t, cfg)
		db.exec(`INSERT INTO item VALUES (4)`)
		r.reach(db.mark())
		if diff := cmp.Diff(map[string]lsn.Epoch{"4": 9}, epochs(r)); diff != "" {
			t.Errorf("fourth reading (-want +got):\n%s", diff)
		}
	})
}

// A lost connection is made again, and what the sink was given is not given again.
func TestReconnects(t *testing.T) {
	onVersions(t, func(t *testing.T, db *database) {
		db.exec(`CREATE TABLE item (id int PRIMARY KEY)`)
		cfg := db.config("item")
		cfg.StatusInterval = time.Hour // nothing is confirmed, so the server sends everything again
		r := start(t, cfg).streaming()
		for i := range 5 {
			db.exec(fmt.Sprintf(`INSERT INTO item SELECT generate_series(%d, %d)`, i*10, i*10+9))
			r.reach(db.mark())
			app := []string{"walsender", "capture"}[i%2]
			db.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tidemark ` + app + ` ` + cfg.Slot + `'`)
		}
		db.exec(`INSERT INTO item VALUES (100)`)
		r.reach(db.mark())
		wantRows(t, "item", r.live("public.item"), db.rows("item", "id"))
		r.until("the sink is told to begin: for the snapshot, for the stream, and again behind lost connections", func() bool {
			r.ledger.mu.Lock()
			defer r.ledger.mu.Unlock()
			return r.begun >= 4 // a connection that ends is noticed a little later
		})
		if n := len(r.changes("public.item")); n != 51 {
			t.Errorf("%d changes, want 51: each once", n)
		}
	})
}

func TestDrop(t *testing.T) {
	db := newDatabase(t, "18")
	db.exec(`CREATE TABLE item (id int PRIMARY KEY)`)
	r := start(t, db.config("item")).streaming()
	r.stop()
	if err := r.Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := db.text(`SELECT count(*)::text FROM (SELECT 1 FROM pg_replication_slots WHERE slot_name = $1::text UNION ALL SELECT 1 FROM pg_publication UNION ALL SELECT 1 FROM tidemark.capture) x`, db.name); left != "0" {
		t.Errorf("%s things are left", left)
	}
	r = start(t, db.config("item")).streaming()
	if e := r.Level().Epoch; e != 2 {
		t.Errorf("epoch is %d, want 2: they go on", e)
	}
}

func TestFailoverSlot(t *testing.T) {
	onVersions(t, func(t *testing.T, db *database) {
		db.exec(`CREATE TABLE item (id int PRIMARY KEY)`)
		cfg := db.config("item")
		cfg.Failover = true
		start(t, cfg).streaming()
		if strings.HasSuffix(t.Name(), "pg18") && db.text(`SELECT failover::text FROM pg_replication_slots WHERE slot_name = $1`, cfg.Slot) != "true" {
			t.Error("the slot is not one that standbys keep")
		}
	})
}

func TestConfig(t *testing.T) {
	good := Config{Shard: "s1", ConnString: "postgres://h/d", Tables: []string{"t"}}
	for _, c := range []struct {
		change func(*Config)
		says   string
	}{
		{func(*Config) {}, ""},
		{func(c *Config) { c.Shard = "" }, "Shard"},
		{func(c *Config) { c.Slot = "Not-a-slot" }, "Not-a-slot"},
		{func(c *Config) { c.Tables = nil }, "Tables is empty"},
		{func(c *Config) { c.Tables = []string{"a.b.c"} }, "a.b.c"},
		{func(c *Config) { c.TxMemory = 1 }, "TxMemory"},
		{func(c *Config) { c.ChunkRows = -1 }, "positive"},
		{func(c *Config) { c.ConnString = "postgres://u:hidden@h:x/d" }, "s1"},
	} {
		cfg := good
		c.change(&cfg)
		_, err := New(cfg, discard)
		if c.says == "" != (err == nil) || err != nil && (!strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "hidden")) {
			t.Errorf("error %v, want one that says %q", err, c.says)
		}
	}
}

func TestParseTable(t *testing.T) {
	for _, c := range []struct {
		in   string
		want tableName
		ok   bool
	}{
		{"orders", tableName{"public", "orders"}, true},
		{"Shop.Orders", tableName{"shop", "orders"}, true},
		{`"Shop"."my ""table"""`, tableName{"Shop", `my "table"`}, true},
		{`shop."a.b"`, tableName{"shop", "a.b"}, true},
		{"", tableName{}, false},
		{"a.", tableName{}, false},
		{".a", tableName{}, false},
		{`"a`, tableName{}, false},
		{`"a"b`, tableName{}, false},
	} {
		got, err := parseTable(c.in)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("parseTable(%q) = %v, %v; want %v", c.in, got, err, c.want)
		}
	}
}

// A sink that cannot be reached, and a table that is locked, cost no epoch: there are 4,095 of them, and outages last.
func TestOutagesCostNoEpoch(t *testing.T) {
	db := newDatabase(t, "18")
	db.exec(`CREATE TABLE item (id int PRIMARY KEY, v text)`, `INSERT INTO item VALUES (1, 'a')`)
	cfg := db.config("item")
	refusing := newLedger()
	refusing.refuses = true
	for range 3 {
		wantError(t, startInto(t, cfg, refusing).wait(), errSink, "it cannot be reached")
	}
	lock := db.connect()
	if _, err := lock.Exec(t.Context(), `BEGIN; LOCK TABLE item`); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r := start(t, cfg)
		r.until("the lock is waited for", func() bool {
			return db.text(`SELECT count(*)::text FROM pg_locks WHERE NOT granted AND relation = 'item'::regclass`) != "0"
		})
		r.stop()
	}
	if got := db.text(`SELECT count(*)::text FROM tidemark.epoch`); got != "0" {
		t.Errorf("%s epochs were begun", got)
	}
	if _, err := lock.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	r := start(t, cfg).streaming()
	if e := r.Level().Epoch; e != 1 {
		t.Errorf("epoch is %d, want 1", e)
	}
	r.stop()

	// A new snapshot that is permitted, and whose sink cannot be reached, stays due without the permission.
	db.exec(`SELECT pg_drop_replication_slot('` + cfg.Slot + `')`)
	cfg.Resnapshot = true
	wantError(t, startInto(t, cfg, refusing).wait(), errSink)
	cfg.Resnapshot = false
	if e := startInto(t, cfg, r.ledger).streaming().Level().Epoch; e != 2 {
		t.Errorf("epoch is %d, want 2", e)
	}
}
