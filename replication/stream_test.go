package replication

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// brief is a change in short: "u public.item 1 -> 2 superseded".
func brief(cs []Change) (out []string) {
	for _, c := range cs {
		s := fmt.Sprintf("%d %c", c.Ordinal, c.Op)
		for _, v := range [][]Value{c.Old, c.New} {
			s += " " + strings.ReplaceAll(strings.TrimSuffix(rowText(v), "\x1f"), "\x1f", ",")
		}
		if !c.Last {
			s += " superseded"
		}
		out = append(out, s)
	}
	return out
}

func TestOneEffectPerKey(t *testing.T) {
	onVersions(t, func(t *testing.T, db *database) {
		db.exec(`CREATE TABLE item (id int PRIMARY KEY, v text)`, `CREATE TABLE other (id int PRIMARY KEY, v text)`)
		r := start(t, db.config("item", "other")).streaming()
		steps := []struct {
			name string
			sql  string
			want []string
		}{
			{"insert", `INSERT INTO item VALUES (1, 'a'), (2, NULL)`, []string{"0 c  1,a", "1 c  2,<null>"}},
			{"update", `UPDATE item SET v = 'b' WHERE id = 1`, []string{"0 u 1,a 1,b"}},
			{"key change", `UPDATE item SET id = 3 WHERE id = 1`, []string{"0 d 1,b ", "1 c  3,b"}},
			{
				"a key's whole life", `BEGIN; INSERT INTO item VALUES (7, 'x'); UPDATE item SET v = 'y' WHERE id = 7; DELETE FROM item WHERE id = 7; COMMIT`,
				[]string{"0 c  7,x superseded", "1 u 7,x 7,y superseded", "2 d 7,y "},
			},
			{
				"moved away and back", `BEGIN; UPDATE item SET id = 9 WHERE id = 2; UPDATE item SET id = 2, v = 'back' WHERE id = 9; COMMIT`,
				[]string{"0 d 2,<null>  superseded", "1 c  9,<null> superseded", "2 d 9,<null> ", "3 c  2,back"},
			},
			{
				"truncate in the middle", `BEGIN; INSERT INTO other VALUES (1, 'stays'); INSERT INTO item VALUES (5, 'gone'); TRUNCATE item; INSERT INTO item VALUES (2, 'new'); COMMIT`,
				[]string{"1 c  5,gone superseded", "2 t  ", "3 c  2,new"},
			},
			{
				"subtransactions", `BEGIN; INSERT INTO item VALUES (20, 'a'); SAVEPOINT s; UPDATE item SET v = 'lost' WHERE id = 20; ROLLBACK TO s; UPDATE item SET v = 'kept' WHERE id = 20; COMMIT`,
				[]string{"0 c  20,a superseded", "1 u 20,a 20,kept"},
			},
			{"truncate of two", `TRUNCATE item, other`, []string{"0 t  "}},
		}
		for _, s := range steps {
			before := len(r.changes("public.item"))
			if err := db.conn.PgConn().Exec(t.Context(), s.sql).Close(); err != nil {
				t.Fatal(err)
			}
			r.reach(db.mark())
			got := brief(r.changes("public.item")[before:])
			if s.name == "truncate of two" {
				for i := range got { // either table may come first
					got[i] = "0" + got[i][1:]
				}
			}
			if diff := cmp.Diff(s.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", s.name, diff)
			}
		}
		wantRows(t, "item", r.live("public.item"), map[string]string{})
	})
}

// Transactions far larger than memory are streamed while they run, spill, lose their aborted parts, and come in parts.
func TestLargeTransactions(t *testing.T) {
	onVersions(t, func(t *testing.T, db *database) {
		db.exec(`CREATE TABLE big (id int PRIMARY KEY, v text)`)
		cfg := db.config("big")
		cfg.TxMemory, cfg.PartChanges, cfg.PartBytes = minTxMemory, 1000, 256<<10
		cfg.TempDir = t.TempDir()
		r := start(t, cfg).streaming()

		const n = 20_000
		db.exec(`BEGIN`, fmt.Sprintf(`INSERT INTO big SELECT i, 'first' FROM generate_series(1, %d) i`, n))
		// Two others meanwhile: one that rolls back as a whole, one that commits first.
		other := db.connect()
		if err := other.PgConn().Exec(t.Context(), `BEGIN; INSERT INTO big SELECT -i, 'never' FROM generate_series(1, 5000) i; ROLLBACK;
			INSERT INTO big SELECT 100000 + i, 'meanwhile' FROM generate_series(1, 3000) i`).Close(); err != nil {
			t.Fatal(err)
		}
		db.exec(`SAVEPOINT a`, `UPDATE big SET v = 'aborted' WHERE id <= 10000`, `SAVEPOINT b`, `DELETE FROM big WHERE id > 15000`, `RELEASE b`, `ROLLBACK TO a`,
			`UPDATE big SET v = 'second' WHERE id % 2 = 0`, `DELETE FROM big WHERE id % 10 = 0`, `COMMIT`)
		r.reach(db.mark())
		wantRows(t, "big", r.live("public.big"), db.rows("big", "id"))

		parts, last := 0, map[string]int{}
		var commit lsn.LSN
		txs, _ := r.published()
		for _, tx := range txs {
			if len(tx.Changes) == 0 || string(tx.Changes[0].key()) == "" {
				t.Fatalf("empty transaction %+v", tx)
			}
			if len(tx.Changes) > cfg.PartChanges+1 {
				t.Errorf("a part with %d changes, limit %d", len(tx.Changes), cfg.PartChanges)
			}
			if tx.More {
				if commit != 0 && commit != tx.Commit {
					t.Errorf("parts of two transactions are mixed")
				}
				if tx.End != tx.Commit {
					t.Errorf("a part that is not the last ends at %s, want its commit %s", tx.End, tx.Commit)
				}
				commit = tx.Commit
				parts++
			} else {
				commit = 0
			}
			for _, c := range tx.Changes {
				if v := rowText(c.New); strings.Contains(v, "never") || strings.Contains(v, "aborted") {
					t.Fatalf("an aborted change came through: %v", brief([]Change{c}))
				}
				if c.Last {
					last[tx.Commit.String()+"/"+string(c.key())]++
				}
			}
		}
		if parts < 10 {
			t.Errorf("%d parts, want many", parts)
		}
		for k, times := range last {
			if times != 1 {
				t.Fatalf("key %s has %d last changes", k, times)
			}
		}
		if want := n + 3000 + 1500; len(last) != want { // the large one also updates half of the other's rows
			t.Errorf("%d keys, want %d", len(last), want)
		}
		left, err := os.ReadDir(cfg.TempDir)
		if err != nil || len(left) > 0 {
			t.Errorf("spilled files stay: %v %v", left, err)
		}
	})
}

func (c *Change) key() []byte {
	row := c.New
	if row == nil {
		row = c.Old
	}
	return []byte(rowKey(c.Relation, row))
}

// An update that does not touch a large value carries it all the same.
func TestUnchangedToast(t *testing.T) {
	onVersions(t, func(t *testing.T, db *database) {
		db.exec(`CREATE TABLE doc (id int PRIMARY KEY, n int, body text)`, `ALTER TABLE doc ALTER body SET STORAGE EXTERNAL`,
			`INSERT INTO doc SELECT i, 0, repeat('x' || i, 20000) FROM generate_series(1, 3) i`)
		r := start(t, db.config("doc")).streaming()
		db.exec(`UPDATE doc SET n = 1`, `UPDATE doc SET id = 13 WHERE id = 3`, `DELETE FROM doc WHERE id = 2`)
		r.reach(db.mark())
		wantRows(t, "doc", r.live("public.doc"), db.rows("doc", "id"))
		for _, c := range r.changes("public.doc") {
			for _, v := range slices.Concat(c.Old, c.New) {
				if v.Unchanged {
					t.Errorf("%s: a value was left out", brief([]Change{c}))
				}
			}
		}
	})
}

// The table changes while the stream runs, also in a transaction that writes before and after.
func TestChangedTable(t *testing.T) {
	onVersions(t, func(t *testing.T, db *database) {
		db.exec(`CREATE TYPE mood AS ENUM ('sad', 'glad')`, `CREATE DOMAIN price AS numeric(10,2)`,
			`CREATE TABLE item (id int PRIMARY KEY, v text)`, `INSERT INTO item VALUES (1, 'a')`)
		r := start(t, db.config("item")).streaming()
		db.exec(`INSERT INTO item VALUES (2, 'b')`, `BEGIN`, `INSERT INTO item VALUES (3, 'c')`, `ALTER TABLE item ADD COLUMN m mood, ADD COLUMN ms mood[], ADD COLUMN p price`,
			`INSERT INTO item VALUES (4, 'd', 'sad', '{glad,NULL}', 1.5)`, `COMMIT`, `ALTER TABLE item DROP COLUMN v`, `UPDATE item SET m = 'glad' WHERE id = 2`,
			`ALTER TABLE item RENAME id TO number`, `UPDATE item SET m = 'sad' WHERE number = 1`, `ALTER TABLE item DROP CONSTRAINT item_pkey, ADD COLUMN part int NOT NULL DEFAULT 7, ADD PRIMARY KEY (number, part)`,
			`UPDATE item SET number = 40 WHERE number = 4`)
		r.reach(db.mark())
		var got []string
		for _, c := range r.changes("public.item") {
			s := fmt.Sprintf("%c", c.Op)
			vals := c.New
			if vals == nil {
				vals = c.Old
			}
			for i, col := range c.Relation.Columns {
				j, err := JSON(col, vals[i])
				if err != nil {
					t.Fatal(err)
				}
				key := ""
				if col.Key {
					key = "*"
				}
				s += fmt.Sprintf(" %s%s:%s=%s", col.Name, key, col.Type, j)
			}
			got = append(got, s)
		}
		want := []string{
			`r id*:integer=1 v:text="a"`,
			`c id*:integer=2 v:text="b"`,
			`c id*:integer=3 v:text="c"`,
			`c id*:integer=4 v:text="d" m:mood="sad" ms:mood[]=["glad",null] p:price="1.50"`,
			`u id*:integer=2 m:mood="glad" ms:mood[]=null p:price=null`,
			`u number*:integer=1 m:mood="sad" ms:mood[]=null p:price=null`,
			`d number*:integer=4 m:mood="sad" ms:mood[]=["glad",null] p:price="1.50" part*:integer=7`,
			`c number*:integer=40 m:mood="sad" ms:mood[]=["glad",null] p:price="1.50" part*:integer=7`,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestPartitionedTable(t *testing.T) {
	onVersions(t, func(t *testing.T, db *database) {
		db.exec(`CREATE TABLE ev (id int, day date, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)`,
			`CREATE TABLE ev_a PARTITION OF ev FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')`,
			`CREATE TABLE ev_b (v text, dropped int, day date NOT NULL, id int NOT NULL)`, `ALTER TABLE ev_b DROP COLUMN dropped`,
			`ALTER TABLE ev ATTACH PARTITION ev_b FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')`,
			`INSERT INTO ev SELECT i, date '2024-07-01' + i, 'x' || i FROM generate_series(1, 300) i`)
		r := start(t, db.config("ev")).streaming()
		db.exec(`UPDATE ev SET v = 'changed' WHERE id % 3 = 0`, `UPDATE ev SET day = '2025-12-01' WHERE id = 1`, `DELETE FROM ev WHERE id = 2`)
		r.reach(db.mark())
		wantRows(t, "ev", r.live("public.ev"), db.rows("ev", "id", "day"))
		db.exec(`TRUNCATE ev`)
		r.reach(db.mark())
		wantRows(t, "ev", r.live("public.ev"), map[string]string{})
	})
}

// A level arrives without any traffic behind the mark, whatever lies between the commit and the mark.
func TestMarkReachesLevel(t *testing.T) {
	onVersions(t, func(t *testing.T, db *database) {
		db.exec(`CREATE TABLE item (id int PRIMARY KEY, v text)`, `CREATE TABLE noise (v text)`)
		cfg := db.config("item")
		cfg.Heartbeat = time.Hour // nothing but the stream itself and Settle
		r := start(t, cfg).streaming()
		busy := db.connect()
		cases := []struct {
			name   string
			rounds int
			before func()
		}{
			{"alone", 300, func() {}},
			{"behind another's open transaction", 200, func() {
				// Records that only the WAL writer would flush, between the commit and the mark.
				if _, err := busy.Exec(t.Context(), `INSERT INTO noise VALUES (repeat('n', 50))`); err != nil {
					t.Fatal(err)
				}
			}},
		}
		for i, c := range cases {
			if i == 1 {
				if _, err := busy.Exec(t.Context(), `BEGIN`); err != nil {
					t.Fatal(err)
				}
			}
			var took []time.Duration
			for n := range c.rounds {
				db.exec(fmt.Sprintf(`INSERT INTO item VALUES (%d, 'v')`, i*1000+n))
				c.before()
				m := db.mark()
				began := time.Now()
				r.reach(m)
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			t.Logf("%s: p50 %s p99 %s max %s", c.name, took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
			if took[len(took)/2] > time.Second { // generous: the point is that nothing waits for the WAL writer's or a heartbeat's turn
				t.Errorf("%s: half of the marks took %s or more", c.name, took[len(took)/2])
			}
		}
	})
}

// Nudge brings the level past WAL that nobody has flushed, on a shard without commits.
func TestNudge(t *testing.T) {
	onVersions(t, func(t *testing.T, db *database) {
		db.exec(`CREATE TABLE item (id int PRIMARY KEY)`, `CREATE TABLE noise (v text)`)
		cfg := db.config("item")
		cfg.Heartbeat = time.Hour
		r := start(t, cfg).streaming()
		db.exec(`BEGIN`)
		defer db.exec(`ROLLBACK`)
		for range 20 {
			db.exec(`INSERT INTO noise VALUES ('x')`)
			m := db.mark()
			if err := r.Nudge(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.reach(m)
		}
	})
}

// An idle capture follows the WAL of other databases, level and confirmed position both, so that it pins nothing.
func TestIdleFollowsWAL(t *testing.T) {
	onVersions(t, func(t *testing.T, db *database) {
		db.exec(`CREATE TABLE item (id int PRIMARY KEY)`)
		cfg := db.config("item")
		cfg.StatusInterval = 50 * time.Millisecond
		r := start(t, cfg).streaming()
		elsewhere, err := pgx.Connect(t.Context(), strings.Replace(db.root, db.name, "postgres", 1))
		if err != nil {
			t.Fatal(err)
		}
		defer closeConn(elsewhere)
		if _, err := elsewhere.Exec(t.Context(), `CREATE TEMP TABLE x(); CREATE TABLE noise_`+db.name+` AS SELECT repeat('x', 100) FROM generate_series(1, 10000)`); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if _, err := elsewhere.Exec(context.Background(), `DROP TABLE noise_`+db.name); err != nil {
				t.Error(err)
			}
		}()
		m := db.mark()
		r.reach(m)
		r.until("confirmed position", func() bool {
			return db.text(`SELECT (confirmed_flush_lsn >= $1::text::pg_lsn)::text FROM pg_replication_slots WHERE slot_name = $2`, m.String(), cfg.Slot) == "true"
		})
		if n := len(r.changes("public.item")); n != 0 {
			t.Errorf("%d changes", n)
		}
	})
}

// Nothing is confirmed before it was acknowledged, also while keepalives pass by.
func TestConfirmsOnlyAcknowledged(t *testing.T) {
	onVersions(t, func(t *testing.T, db *database) {
		db.exec(`CREATE TABLE item (id int PRIMARY KEY)`)
		cfg := db.config("item")
		cfg.StatusInterval = 20 * time.Millisecond
		r := start(t, cfg).streaming()
		r.reach(db.mark())
		r.ledger.mu.Lock()
		r.hold = true
		r.ledger.mu.Unlock()
		db.exec(`INSERT INTO item VALUES (1)`)
		first := db.mark()
		r.until("the change", func() bool { return len(r.changes("public.item")) == 1 })
		db.exec(`CREATE TABLE elsewhere AS SELECT generate_series(1, 1000)`)
		r.until("later progress", func() bool { return r.Status().Handed > first })
		time.Sleep(10 * cfg.StatusInterval)
		confirmed := func() string {
			return db.text(`SELECT (confirmed_flush_lsn < $1::text::pg_lsn)::text FROM pg_replication_slots WHERE slot_name = $2`, first.String(), cfg.Slot)
		}
		if confirmed() != "true" || r.Level().LSN >= first {
			t.Fatalf("confirmed or level beyond what was acknowledged: level %s, commit ends at %s", r.Level().LSN, first)
		}
		r.stop()
		if confirmed() != "true" {
			t.Fatal("confirmed at shutdown beyond what was acknowledged")
		}

		// The next worker gets it again, and what is acknowledged just before the end is confirmed at the end.
		cfg.StatusInterval = time.Hour
		r = start(t, cfg)
		r.until("the change again", func() bool { return len(r.changes("public.item")) == 1 })
		r.reach(first)
		r.stop()
		if confirmed() == "true" {
			t.Fatal("not confirmed at shutdown")
		}
	})
}
