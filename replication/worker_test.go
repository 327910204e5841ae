package replication

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// workerEnv makes the test binary run as a capture of its own process, which a test can kill.
const workerEnv = "TIDEMARK_TEST_CAPTURE"

// workerConfig is what the environment carries.
type workerConfig struct {
	Config Config
	Out    string // the file that stands for Kafka
}

func workerMain() {
	var wc workerConfig
	if err := json.Unmarshal([]byte(os.Getenv(workerEnv)), &wc); err != nil {
		panic(err)
	}
	out, err := os.OpenFile(wc.Out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	if _, err := out.WriteString("\n"); err != nil { // ends a line that a kill has cut off
		panic(err)
	}
	c, err := New(wc.Config, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		panic(err)
	}
	f := &fileSink{c: c, out: out, queue: make(chan fileItem, 64)}
	go f.write()
	if err := c.Run(context.Background(), f); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

// fileSink appends what it gets to a file from another goroutine and acknowledges it afterwards: what is in its queue is lost
// when the process is killed.
type fileSink struct {
	c     *Capture
	out   *os.File
	queue chan fileItem
}

// fileItem is one line.
type fileItem struct {
	Tx   *Tx       `json:",omitempty"`
	Done *Progress `json:",omitempty"`
}

func (f *fileSink) Begin(context.Context) error { return nil }

func (f *fileSink) Publish(ctx context.Context, tx *Tx) error { return f.put(ctx, fileItem{Tx: tx}) }

func (f *fileSink) Progress(ctx context.Context, p Progress) error {
	return f.put(ctx, fileItem{Done: &p})
}

func (f *fileSink) put(ctx context.Context, i fileItem) error {
	select {
	case f.queue <- i:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fileSink) write() {
	for i := range f.queue {
		line, err := json.Marshal(i)
		if err != nil {
			panic(err)
		}
		if _, err := f.out.Write(append(line, '\n')); err != nil {
			panic(err)
		}
		if i.Tx != nil {
			f.c.Acked(i.Tx.End)
		} else {
			f.c.Acked(i.Done.LSN)
		}
	}
}

// worker is such a process.
type worker struct {
	cmd *exec.Cmd
}

func startWorker(t *testing.T, cfg Config, out string) *worker {
	t.Helper()
	env, err := json.Marshal(workerConfig{cfg, out})
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{cmd: exec.Command(exe)}
	w.cmd.Env = append(os.Environ(), workerEnv+"="+string(env))
	w.cmd.Stderr = logWriter{t}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.kill)
	return w
}

// kill is SIGKILL; it may be called again.
func (w *worker) kill() {
	_ = w.cmd.Process.Kill() // it may be dead already
	_ = w.cmd.Wait()         // "signal: killed"
}

// readLedger applies the whole lines of a file to a ledger.
func readLedger(t *testing.T, out string) *ledger {
	t.Helper()
	f, err := os.Open(out)
	if os.IsNotExist(err) {
		return newLedger()
	} else if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	l := newLedger()
	l.begun = 1
	in := bufio.NewReader(f)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return l
		}
		var i fileItem
		if err := json.Unmarshal(line, &i); err != nil {
			continue // empty, or cut off by a kill
		}
		if i.Tx != nil {
			err = l.Publish(t.Context(), i.Tx)
		} else {
			err = l.Progress(t.Context(), *i.Done)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// lastProgress looks at a file's last lines only.
func lastProgress(t *testing.T, out string) lsn.LSN {
	t.Helper()
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	const tail = 4096
	if st, err := f.Stat(); err == nil && st.Size() > tail {
		if _, err := f.Seek(-tail, io.SeekEnd); err != nil {
			t.Fatal(err)
		}
	}
	var last lsn.LSN
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var i fileItem
		if json.Unmarshal(lines.Bytes(), &i) == nil && i.Done != nil {
			last = i.Done.LSN
		}
	}
	return last
}

// A worker is killed again and again, in its snapshots and in its streams, while writers go on. Nothing is missing in the end, and
// what is repeated has the same identity and content.
func TestKilledWorkerLosesNothing(t *testing.T) {
	onVersions(t, func(t *testing.T, db *database) {
		db.exec(`CREATE TABLE item (id int PRIMARY KEY, n int)`, `INSERT INTO item SELECT i, 0 FROM generate_series(1, 3000) i`,
			`CREATE TABLE audit (seq bigserial PRIMARY KEY, v text)`)
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		rnd := rand.New(rand.NewPCG(seed, 0))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var g errgroup.Group
		for w := range 2 {
			conn := db.connect()
			rnd := rand.New(rand.NewPCG(seed, uint64(w+1)))
			g.Go(func() error {
				for ctx.Err() == nil {
					sql := fmt.Sprintf(`BEGIN; INSERT INTO audit (v) VALUES ('x'); UPDATE item SET n = n + 1 WHERE id %% 500 = %d; COMMIT`, rnd.IntN(500))
					switch rnd.IntN(50) {
					case 0, 1:
						sql = fmt.Sprintf(`DELETE FROM item WHERE id = %d`, 1+rnd.IntN(3000))
					case 2: // larger than TxMemory
						sql = `INSERT INTO audit (v) SELECT repeat('y', 300) FROM generate_series(1, 600)`
					}
					if err := conn.PgConn().Exec(context.Background(), sql).Close(); err != nil {
						return err
					}
				}
				return nil
			})
		}

		cfg := db.config("item", "audit")
		cfg.TxMemory, cfg.PartChanges, cfg.ChunkRows, cfg.StatusInterval = minTxMemory, 500, 50, 200*time.Millisecond
		cfg.TakeoverPoll = 20 * time.Millisecond
		out := filepath.Join(t.TempDir(), "kafka")
		for i := range 8 {
			w := startWorker(t, cfg, out)
			time.Sleep(time.Duration(100+rnd.IntN(150*(i+1))) * time.Millisecond)
			w.kill()
		}
		w := startWorker(t, cfg, out)
		cancel()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		mark := db.mark()
		deadline := time.Now().Add(patience)
		for lastProgress(t, out) < mark {
			if time.Now().After(deadline) {
				t.Fatalf("the last worker did not reach %s", mark)
			}
			time.Sleep(10 * time.Millisecond)
		}
		w.kill()
		l := readLedger(t, out)

		// Only what the last complete snapshot's epoch says counts for rows, and older epochs are below it by version.
		wantRows(t, "item", l.live("public.item"), db.rows("item", "id"))
		wantRows(t, "audit", l.live("public.audit"), db.rows("audit", "seq"))

		type id struct {
			epoch   lsn.Epoch
			commit  lsn.LSN
			ordinal int
		}
		seen, repeated := map[id]string{}, 0
		for _, tx := range l.txs {
			for _, c := range tx.Changes {
				i := id{tx.Epoch, tx.Commit, c.Ordinal}
				s := brief([]Change{c})[0]
				if old, ok := seen[i]; ok && c.Op != Snapshot {
					repeated++
					if old != s {
						t.Fatalf("change %+v came as %s and as %s", i, old, s)
					}
				}
				seen[i] = s
			}
		}
		epochs := map[lsn.Epoch]bool{}
		for _, p := range l.progress {
			if !p.SnapshotDone { // a kill may come between that and the record that says so in the shard
				epochs[p.Epoch] = true
			}
		}
		t.Logf("%d changes, %d repeated, last epoch %s", len(seen), repeated, db.text(`SELECT max(epoch)::text FROM tidemark.epoch`))
		if len(epochs) > 1 { // none: the last snapshot saw all that was written
			t.Errorf("progress in epochs %v, want one at most: a snapshot that was complete must not be taken again", epochs)
		}
	})
}

// Several workers run; one streams. When it is killed, another goes on where it was.
func TestTakeover(t *testing.T) {
	onVersions(t, func(t *testing.T, db *database) {
		db.exec(`CREATE TABLE item (id int PRIMARY KEY)`)
		cfg := db.config("item")
		cfg.TakeoverPoll = 50 * time.Millisecond
		out := filepath.Join(t.TempDir(), "kafka")
		first := startWorker(t, cfg, out)
		deadline := time.Now().Add(patience)
		for len(readLedger(t, out).progress) == 0 {
			if time.Now().After(deadline) {
				t.Fatal("the first worker does not start")
			}
			time.Sleep(10 * time.Millisecond)
		}
		second, third := start(t, cfg), start(t, cfg)
		waiting := func(r *running) func() bool { return func() bool { return r.Status().State == Waiting } }
		second.until("waiting", waiting(second))
		third.until("waiting", waiting(third))

		for i := range 50 {
			db.exec(`INSERT INTO item VALUES (` + strconv.Itoa(i) + `)`)
			if i == 25 {
				first.kill()
			}
		}
		killed := time.Now()
		mark := db.mark()
		for second.Level().LSN < mark && third.Level().LSN < mark {
			if time.Now().After(deadline) {
				t.Fatal("nobody took over")
			}
			time.Sleep(time.Millisecond)
		}
		t.Logf("taken over within %s", time.Since(killed))
		states := []State{second.Status().State, third.Status().State}
		slices.Sort(states)
		if states[0] != Streaming || states[1] != Waiting {
			t.Errorf("states %v, want one that streams and one that waits", states)
		}
		all := readLedger(t, out)
		for _, r := range []*running{second, third} {
			txs, _ := r.published()
			for _, tx := range txs {
				if err := all.apply(tx); err != nil {
					t.Fatal(err)
				}
			}
		}
		wantRows(t, "item", all.live("public.item"), db.rows("item", "id"))
	})
}
