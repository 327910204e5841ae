package replication

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// Writers insert, update, move keys and delete while the slot is created and the tables are read. At the end the model is the
// table, and no change came twice.
func TestSnapshotJoinsStream(t *testing.T) {
	onVersions(t, func(t *testing.T, db *database) {
		db.exec(`CREATE TABLE item (id int PRIMARY KEY, note text, n int NOT NULL DEFAULT 0)`,
			`INSERT INTO item SELECT i, repeat(chr(9)||'back\slash'||chr(10), i % 5), 0 FROM generate_series(1, 5000) i`,
			`CREATE TABLE pair (a text, b int, v text, PRIMARY KEY (a, b))`,
			`INSERT INTO pair SELECT 'k'||i, i, NULLIF('', CASE WHEN i % 2 = 0 THEN '' END) FROM generate_series(1, 200) i`,
			`CREATE TABLE empty (id int PRIMARY KEY)`)

		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var g errgroup.Group
		for w := range 4 {
			conn := db.connect()
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			g.Go(func() error {
				for n := 0; ctx.Err() == nil; n++ {
					id := rnd.IntN(6000)
					sql := fmt.Sprintf(`INSERT INTO item VALUES (%d, 'w') ON CONFLICT (id) DO UPDATE SET n = item.n + 1`, id)
					switch rnd.IntN(6) {
					case 0:
						sql = fmt.Sprintf(`DELETE FROM item WHERE id = %d`, id)
					case 1:
						sql = fmt.Sprintf(`UPDATE item SET id = %d WHERE id = %d`, 10_000+w*100_000+n, id)
					case 2:
						sql = fmt.Sprintf(`UPDATE pair SET v = coalesce(v, '') || 'x' WHERE b = %d`, id%200)
					}
					if _, err := conn.Exec(context.Background(), sql); err != nil {
						return fmt.Errorf("%s: %w", sql, err)
					}
				}
				return nil
			})
		}

		cfg := db.config("item", "public.pair", "empty")
		cfg.ChunkPages, cfg.ChunkRows = 4, 100
		r := start(t, cfg).streaming()
		r.until("changes of the stream", func() bool { return r.Level().LSN > 0 && len(r.changes("public.item")) > 6000 })
		cancel()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		r.reach(db.mark())
		wantRows(t, "item", r.live("public.item"), db.rows("item", "id"))
		wantRows(t, "pair", r.live("public.pair"), db.rows("pair", "a", "b"))

		// The changes fit onto the snapshot and onto each other without a gap and without repetition: what is created is not
		// there yet, what is updated or deleted is there exactly as the change found it.
		type id struct {
			commit  lsn.LSN
			ordinal int
		}
		seen := map[id]bool{}
		done := false
		now := map[string]string{}
		txs, progress := r.published()
		for _, tx := range txs {
			for _, c := range tx.Changes {
				i := id{tx.Commit, c.Ordinal}
				if seen[i] {
					t.Fatalf("change %+v came twice", i)
				}
				seen[i] = true
				if c.Op != Snapshot {
					done = true
				} else if done {
					t.Fatal("a snapshot's row came behind the stream's")
				}
				key := c.Relation.Name + "/" + string(c.key())
				before, there := now[key]
				if found := rowText(c.Old); there != (c.Old != nil) || there && before != found {
					t.Fatalf("%s at %s does not fit: the row was %q, %v", brief([]Change{c}), tx.Commit, before, there)
				}
				if now[key] = rowText(c.New); c.New == nil {
					delete(now, key)
				}
			}
		}
		if got := progress[0]; !got.SnapshotDone || got.Epoch != 1 {
			t.Errorf("first progress is %+v, want the end of the snapshot in epoch 1", got)
		}
	})
}
