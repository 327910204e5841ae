package engine

import "github.com/tidemarkdb/tidemark/internal/loop"

// Owed is the number of replies still to come.
func (l *Link) Owed() int { return len(l.queue) - l.head }

// Expect queues a reply. A Synthetic one that is first in line is due at once: Deliver it.
func (l *Link) Expect(e Expect) {
	l.sole = 0
	if e.Kind == Sync || e.Kind == Query || e.Kind == Function {
		l.Conn.Outstanding++
	}
	l.begun.expects(e.Kind)
	if e.Kind == Query {
		l.Conn.Unnamed = 0 // a simple query takes the unnamed statement's place
	}
	if l.Since == 0 {
		l.Since = loop.Clock()
	}
	if len(l.queue) == cap(l.queue) && l.head > len(l.queue)/2 {
		l.compact() // the queue of a client that always has something under way never runs empty
	}
	if e.prepares() {
		l.parses++
	}
	l.queue = append(l.queue, e)
}

// prepares says whether the connection has the statement when the request has succeeded.
func (e *Expect) prepares() bool { return e.Statement != 0 && (e.Kind == Parse || e.Kind == Execute) }

// Unsure says whether the connection's having a statement depends on how an earlier batch goes: one that is not answered yet
// prepares it. An error there skips that, and nothing of this batch.
func (l *Link) Unsure(statement uint64) bool {
	if l.parses == 0 {
		return false
	}
	prepared := false
	for i := l.head; i < len(l.queue); i++ {
		switch e := &l.queue[i]; {
		case e.prepares() && e.Statement == statement:
			prepared = true
		case prepared && e.Kind == Sync:
			return true
		}
	}
	return false
}

// Preparing says whether some request that prepares a statement has not been answered yet.
func (l *Link) Preparing() bool { return l.parses > 0 }

// Syncs is how many Syncs have not been answered.
func (l *Link) Syncs() (n uint64) {
	for i := l.head; i < len(l.queue); i++ {
		if l.queue[i].Kind == Sync {
			n++
		}
	}
	return n
}

// compact moves what is owed to the front of the queue.
func (l *Link) compact() {
	n := copy(l.queue, l.queue[l.head:])
	clear(l.queue[n:])
	l.queue = l.queue[:n]
	l.ended = max(0, l.ended-l.head)
	l.head = 0
}

func (l *Link) first() *Expect {
	if l.head == len(l.queue) {
		return nil
	}
	return &l.queue[l.head]
}

// done completes the first reply.
func (l *Link) done() {
	e := &l.queue[l.head]
	if e.Reply != nil {
		e.Reply.Done = true
	}
	l.pop(e)
	if l.head >= l.ended {
		l.early, l.ended = 0, 0
	}
	if l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
	}
}

// pop takes e, the first reply, out of the queue.
func (l *Link) pop(e *Expect) {
	if e.prepares() {
		l.parses--
	}
	*e = Expect{}
	l.head++
}

// Deliver gives the client the synthetic replies that are due.
func (l *Link) Deliver(r *Relay) { l.synthetic(r, nil) }

func (l *Link) synthetic(r *Relay, st *stretch) {
	for e := l.first(); e != nil && e.Kind == Synthetic; e = l.first() {
		st.cut(r)
		if e.Late != nil {
			e.Bytes = e.Late()
		}
		r.Reply(e.Bytes)
		l.done()
	}
}
