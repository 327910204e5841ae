package cqrs

import (
	"context"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// pending is a transaction, or a position between transactions, on its way.
type pending struct {
	end       lsn.LSN
	mark      lsn.Mark // zero: acknowledging it says nothing about the stream's level
	left      int      // records without acknowledgement
	droppable bool     // a Progress, which a following one may replace
}

// admit blocks until size more bytes may wait.
func (p *Publisher) admit(ctx context.Context, size int) error {
	for {
		p.mu.Lock()
		if p.bytes == 0 || p.bytes+size <= p.cfg.BufferBytes {
			p.bytes += size
			p.mu.Unlock()
			return nil
		}
		p.mu.Unlock()
		if err := p.wait(ctx, p.room); err != nil {
			return err
		}
	}
}

// acknowledge takes finished transactions off the front of the order and says so, in order.
func (p *Publisher) acknowledge(ctx context.Context) error {
	for {
		select {
		case <-p.acks:
		case <-ctx.Done():
			return nil
		}
		for {
			done, mark := p.settled()
			if done == nil {
				break
			}
			for _, t := range done {
				p.cfg.Acked(t.end)
			}
			if mark {
				notify(p.moved)
			}
		}
	}
}

func (p *Publisher) settled() (done []*pending, moved bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(p.order) && p.order[n].left == 0 {
		if m := p.order[n].mark; p.mark.Less(m) {
			p.mark, moved = m, true
		}
		n++
	}
	done = p.order[:n:n]
	p.order = p.order[n:]
	if n == 0 {
		return nil, false
	}
	return done, moved
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Pending is how much is handed over and not yet acknowledged: transactions, and bytes of records.
func (p *Publisher) Pending() (transactions, bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.order), p.bytes
}

// Mark is how far the shard's stream is on the bus.
func (p *Publisher) Mark() lsn.Mark {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mark
}
