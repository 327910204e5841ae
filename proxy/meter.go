package proxy

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// Histogram counts durations in buckets whose bounds are powers of two, so that counting one is an addition. It is safe for
// concurrent use.
type Histogram struct {
	buckets [histogramBuckets]atomic.Uint64
	sum     atomic.Uint64 // nanoseconds
}

// Bucket i holds what takes at most 2^(i+histogramFirst) nanoseconds: from 65.5 µs to 34.4 s; the last bucket has no bound.
const (
	histogramFirst   = 16
	histogramBuckets = 21
)

func (h *Histogram) record(d time.Duration) {
	if d <= 0 {
		h.buckets[0].Add(1) // most often nobody has to wait
		return
	}
	n := uint64(d)
	h.buckets[min(max(0, bits.Len64(n-1)-histogramFirst), histogramBuckets-1)].Add(1)
	h.sum.Add(n)
}

// Read returns the number of durations, their sum in seconds, and how many are at most as long as each bound, in seconds.
func (h *Histogram) Read() (count uint64, sum float64, atMost map[float64]uint64) {
	atMost = make(map[float64]uint64, histogramBuckets-1)
	for i := range h.buckets {
		count += h.buckets[i].Load()
		if i < histogramBuckets-1 {
			atMost[float64(uint64(1)<<(i+histogramFirst))/float64(time.Second)] = count
		}
	}
	return count, time.Duration(h.sum.Load()).Seconds(), atMost
}

// Meter is what one user's sessions did on one shard since the start.
type Meter struct {
	User, Shard string

	Query       Histogram // requests: a query string, or an extended batch, from its first byte sent to its last answer
	Transaction Histogram // from its first request to its end; a request outside of a transaction is one
	Wait        Histogram // for a server connection, by those that asked for one
	BytesIn     atomic.Uint64
	BytesOut    atomic.Uint64
}

// maxMeters bounds the meters; what users beyond do is counted together under the name of othersName.
const (
	maxMeters  = 4096
	othersName = "(others)"
)

// meters are all meters. A session looks here once for each shard that it uses.
type meters struct {
	mu   sync.Mutex
	byID map[[2]string]*Meter
}

func (m *meters) find(user, shard string) *Meter {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byID == nil {
		m.byID = map[[2]string]*Meter{}
	}
	id := [2]string{user, shard}
	if m.byID[id] == nil && len(m.byID) >= maxMeters {
		id[0] = othersName
	}
	x := m.byID[id]
	if x == nil {
		x = &Meter{User: id[0], Shard: shard}
		m.byID[id] = x
	}
	return x
}

// Meters lists them in no order.
func (p *Proxy) Meters() []*Meter {
	p.meters.mu.Lock()
	defer p.meters.mu.Unlock()
	all := make([]*Meter, 0, len(p.meters.byID))
	for _, m := range p.meters.byID {
		all = append(all, m)
	}
	return all
}

// meter is the session's meter for a shard.
func (s *session) meter(shard string) *Meter {
	for _, m := range s.metered {
		if m.Shard == shard {
			return m
		}
	}
	m := s.p.meters.find(s.client.user, shard)
	s.metered = append(s.metered, m)
	return m
}

// measure records a request that the link had answered by now, and the transaction if that has ended.
func (s *session) measure(l *engine.Link, now time.Duration) {
	m := s.meter(l.Shard)
	m.Query.record(now - l.Since)
	if s.traced != nil {
		s.traced.served(l, now)
	}
	if s.began == 0 {
		s.began = l.Since
	}
	if l.Conn.TxStatus == wire.TxIdle {
		m.Transaction.record(now - s.began)
		s.began = 0
	}
	l.Since = 0
	in, out := s.Moved()
	m.BytesIn.Add(in)
	m.BytesOut.Add(out)
}
