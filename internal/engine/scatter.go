package engine

import (
	"time"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// Concatenate gives the client the rows of several links, one link after the other in their order, and returns how many
// there were. The requests have been sent and their Expects queued, with replies[i] for links[i]; all links but the
// first are Paused, so that what they have to say waits in their sockets and memory stays that of one link.
//
// An error from a shard is returned, not told; links that are then not Idle must be closed.
func (r *Relay) Concatenate(links []*Link, replies []Reply) (rows uint64, err error) {
	for i, l := range links {
		l.Paused = false
		for !l.Idle() && l.Err == nil && replies[i].Err == nil {
			if err := r.Serve(); err != nil {
				return rows, err
			}
		}
		l.Until = loop.Clock()
		switch {
		case l.Err != nil:
			return rows, l.Err
		case replies[i].Err != nil:
			return rows, replies[i].Err
		}
		if _, n, ok := wire.TagRows([]byte(replies[i].Tag)); ok {
			rows += n
		}
	}
	return rows, nil
}

// Hush has the client hear nothing of what the link, which is between two messages, still owes.
func (l *Link) Hush() {
	l.Paused = false
	for i := l.head; i < len(l.queue); i++ {
		l.queue[i].Mute = MuteAll
		if reply := l.queue[i].Reply; reply != nil {
			reply.PassNotices = false
		}
	}
}

// Serve is a Step that ends when the client has left, and has not said goodbye behind what is under way.
func (r *Relay) Serve() error {
	if err := r.Step(time.Time{}); err != nil {
		return err
	}
	if r.gone && !r.saidGoodbye() {
		return ErrClientGone
	}
	return nil
}

// Await serves the links until one of them has answered all it was asked.
func (r *Relay) Await(l *Link) error {
	for !l.Idle() && l.Err == nil {
		if err := r.Serve(); err != nil {
			return err
		}
	}
	return nil
}
