package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/cqrs/bustest"
	"github.com/tidemarkdb/tidemark/cqrs/kafka"
	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

// wire is a process's network: cut, it looks to the broker as after a SIGKILL, and to the process as an outage.
type wire struct {
	mu    sync.Mutex
	down  bool
	conns []net.Conn
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return nil, errors.Join(errors.New("the wire is cut"), c.Close())
	}
	w.conns = append(w.conns, c)
	return c, nil
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = true
	for _, c := range w.conns {
		_ = c.Close() // may be closed already
	}
}

func value(id int, v string) string { return fmt.Sprintf(`{"id":%d,"value":%q}`, id, v) }

// A worker that dies without a word is replaced in seconds, and nothing that it left undone is lost.
func TestKilledWorkerIsReplaced(t *testing.T) {
	k := testcontainers.Shared(t, spec).Kafka
	clean := func(t *testing.T) cqrs.Bus { return open(t, kafka.Config{Brokers: k.Brokers}) }
	store := &bustest.Store{}
	p := bustest.NewPipeline(t, clean, 4, store)
	a, b := &wire{}, &wire{}
	ra, _ := p.Work(open(t, kafka.Config{Brokers: k.Brokers, Dial: a.dial}), p.View)
	rb, _ := p.Work(open(t, kafka.Config{Brokers: k.Brokers, Dial: b.dial}), p.View)
	for len(ra.Stats()) != 2 || len(rb.Stats()) != 2 {
		time.Sleep(10 * time.Millisecond)
		if t.Context().Err() != nil {
			t.Fatal("the workers never shared the partitions")
		}
	}
	const n, accounts = 400, 10
	var token lsn.Token
	for i := range n {
		token = p.Write(lsn.LSN(8+8*i), strconv.Itoa(i), i%accounts)
		if i == n/2 {
			if err := p.Wait(token, ""); err != nil {
				t.Fatal(err)
			}
			a.cut()
		}
	}
	began := time.Now()
	if err := p.Wait(token, ""); err != nil {
		t.Fatal(err)
	}
	t.Logf("replaced after %s", time.Since(began))
	if got := len(rb.Stats()); got != 4 {
		t.Errorf("the other worker has %d partitions", got)
	}
	for id := range accounts {
		if got, _ := store.Get(bustest.Key(id)); got.Row != value(id, strconv.Itoa(n-accounts+id)) {
			t.Errorf("account %d: %s", id, got.Row)
		}
	}
}

// A broker that is killed in mid-stream and comes back loses nothing, and no reader sees anything twice: each key's
// events, without the repetitions that versions show, are in its partition exactly in order.
func TestBrokerIsKilledInMidStream(t *testing.T) {
	k := testcontainers.New(t, spec).Kafka
	clean := func(t *testing.T) cqrs.Bus { return open(t, kafka.Config{Brokers: k.Brokers}) }
	store := &bustest.Store{}
	p := bustest.NewPipeline(t, clean, 3, store)
	p.Work(clean(t), p.View)
	p.Work(clean(t), p.View)

	const n, accounts = 3000, 20
	var restarts sync.WaitGroup
	defer restarts.Wait()
	var token lsn.Token
	for i := range n {
		token = p.Write(lsn.LSN(8+8*i), strconv.Itoa(i), i%accounts)
		if i == n/10 {
			if err := p.Wait(token, ""); err != nil {
				t.Fatal(err)
			}
		}
		if i == n/3 {
			restarts.Go(func() {
				if err := k.Kill(); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Second)
				if err := k.Start(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
			})
		}
		if i%10 == 0 {
			time.Sleep(time.Millisecond) // so that the kill comes in the middle
		}
	}
	restarts.Wait()
	if err := p.Wait(token, ""); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= n; i++ {
		if got := <-p.Acked; got != lsn.LSN(8+8*i) {
			t.Fatalf("acknowledged %s as number %d", got, i)
		}
	}
	for id := range accounts {
		if got, _ := store.Get(bustest.Key(id)); got.Row != value(id, strconv.Itoa(n-accounts+id)) {
			t.Errorf("account %d: %s", id, got.Row)
		}
	}
	histories, repeated := history(t, clean(t), p.Names.Table("public", "accounts"))
	for id := range accounts {
		h := histories[bustest.Key(id)]
		if len(h) != n/accounts {
			t.Errorf("account %d: %d events, want %d", id, len(h), n/accounts)
			continue
		}
		for i, v := range h {
			if want := strconv.Quote(strconv.Itoa(i*accounts + id)); v != want {
				t.Errorf("account %d: event %d sets %s, want %s", id, i, v, want)
				break
			}
		}
	}
	t.Logf("%d repetitions", repeated)
}

// history reads the values of each key as a reader sees them that passes over what is not newer.
func history(t *testing.T, bus cqrs.Bus, topic string) (values map[string][]string, repeated int) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	values = map[string][]string{}
	newest := map[string]lsn.Version{}
	bounds, err := bus.Bounds(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	for n := range bounds {
		for offset := bounds[n].First; offset < bounds[n].End; {
			b, err := bus.Fetch(ctx, topic, n, offset, 1<<20, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range b.Records {
				e, err := cqrs.DecodeEvent(r.Value)
				if err != nil {
					t.Fatal(err)
				}
				if key := string(r.Key); e.Version > newest[key] {
					newest[key] = e.Version
					values[key] = append(values[key], string(e.After.Get("value")))
				} else {
					repeated++
				}
			}
			offset = b.Next
		}
	}
	return values, repeated
}
