package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/lsn"
	"golang.org/x/sync/errgroup"
)

// stream runs one replication connection. Three goroutines share it: one reads and hands over, one confirms what was
// acknowledged, one looks after WAL that nobody flushes. They end together.
func (c *Capture) stream(ctx context.Context, ctl *control, ws *walsender, first lsn.Epoch, tables []capturedTable, sink Sink) error {
	timeline, flushed, err := ws.identify(ctx)
	if err != nil {
		return err
	}
	if err := c.rejoin(timeline, flushed, first); err != nil {
		return err
	}
	if err := ws.start(ctx); err != nil {
		return err
	}
	c.enter(Streaming)
	c.log.Info("streaming", "epoch", first)

	keys := make(map[uint32][]string, len(tables))
	for _, t := range tables {
		keys[t.OID] = t.Key
	}
	cat := &catalog{ctl: ctl, types: map[uint32]typeInfo{}, keys: keys}
	s := &stream{
		c: c, ws: ws, sink: sink, replies: make(chan struct{}, 1), commits: make(chan struct{}, 1),
		asm: newAssembler(cat.describe, first), spools: newSpools(c.cfg.TempDir, c.cfg.TxMemory),
	}
	g, gctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(gctx, ws.interrupt)
	defer stop()
	g.Go(func() error { return s.read(gctx) })
	g.Go(func() error { return s.confirm(gctx, ctl) })
	g.Go(func() error { return s.watch(gctx, ctl) })
	err = errors.Join(g.Wait(), s.spools.close())
	if ctx.Err() != nil {
		s.leave(ctl)
	}
	return err
}

// rejoin prepares for a stream that may repeat what an earlier connection of this Run delivered. On the same timeline the sink
// still has that, and it is not given again.
func (c *Capture) rejoin(timeline string, flushed lsn.LSN, first lsn.Epoch) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.timeline == "":
		c.timeline = timeline
	case c.timeline != timeline:
		return fmt.Errorf("%w: its timeline was %s and is %s", ErrHistoryChanged, c.timeline, timeline)
	case flushed < c.delivered:
		return fmt.Errorf("%w: its WAL ends at %s, before %s, which was published already", ErrHistoryChanged, flushed, c.delivered)
	}
	if n := len(c.histories); n == 0 || c.histories[n-1].epoch < first {
		c.histories = append(c.histories, history{epoch: first, from: 0, seen: true})
	}
	return nil
}

// stream is the state of one replication connection.
type stream struct {
	c       *Capture
	ws      *walsender
	sink    Sink
	asm     *assembler
	spools  *spools
	whole   *spool        // the transaction between Begin and Commit
	part    *spool        // the transaction between Stream Start and Stream Stop
	replies chan struct{} // the server asked for a status
	commits chan struct{} // a commit with changes was handed over
}

// read takes messages as they come and hands over what is complete.
func (s *stream) read(ctx context.Context) error {
	if err := s.sink.Begin(ctx); err != nil { // now that the slot is ours, and nobody else's any more
		return fmt.Errorf("%w: begin: %w", errSink, err)
	}
	for {
		m, err := s.ws.next()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("read the stream: %w", err)
		}
		if m.kind == 'w' {
			if err := s.message(ctx, m.payload[0], m.payload[1:]); err != nil {
				return err
			}
			continue
		}
		if m.reply {
			signal(s.replies)
		}
		if err := s.progress(ctx, m.walEnd); err != nil {
			return err
		}
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// message does what a pgoutput message asks for:
//
//	             outside     in Begin…Commit   in Stream Start…Stop
//	B            whole       error             error
//	C            error       publish           error
//	S            part        error             error
//	E            error       error             outside
//	c, A         publish, forget (that transaction)  error
//	R I U D T    error       keep              keep, with the (sub)transaction in front
//	Y O M        ignored everywhere
func (s *stream) message(ctx context.Context, kind byte, body []byte) error {
	bad := func() error { return fmt.Errorf("%w: %q out of place", ErrProtocol, kind) }
	switch kind {
	case msgType, msgOrigin, msgMessage:
		return nil
	case msgRelation, msgInsert, msgUpdate, msgDelete, msgTruncate:
		switch {
		case s.part != nil:
			if len(body) < 4 {
				return bad()
			}
			return s.spools.add(s.part, binary.BigEndian.Uint32(body), kind, body[4:])
		case s.whole != nil:
			return s.spools.add(s.whole, s.whole.xid, kind, body)
		}
		return bad()
	case msgStreamStop:
		if s.part == nil {
			return bad()
		}
		s.part = nil
		return nil
	case msgCommit:
		if s.whole == nil {
			return bad()
		}
		m, err := decodeCommit(kind, body)
		if err != nil {
			return err
		}
		m.xid, s.whole = s.whole.xid, nil
		return s.publish(ctx, m)
	}
	if s.part != nil || s.whole != nil {
		return bad()
	}
	switch kind {
	case msgBegin:
		m, err := decodeBegin(body)
		if err != nil {
			return err
		}
		s.whole = s.spools.begin(m.xid)
		return nil
	case msgStreamStart:
		xid, err := decodeStreamStart(body)
		if err != nil {
			return err
		}
		s.part = s.spools.begin(xid)
		return nil
	case msgStreamCommit:
		m, err := decodeCommit(kind, body)
		if err != nil {
			return err
		}
		return s.publish(ctx, m)
	case msgStreamAbort:
		xid, sub, err := decodeStreamAbort(body)
		if err != nil {
			return err
		}
		return s.spools.abort(xid, sub)
	}
	return fmt.Errorf("%w: unknown kind %q", ErrProtocol, kind)
}

// publish hands a committed transaction over, or only the progress if it changed nothing that is captured.
func (s *stream) publish(ctx context.Context, m commitMsg) (err error) {
	sp := s.spools.take(m.xid)
	if sp == nil {
		sp = &spool{xid: m.xid}
	}
	defer func() { err = errors.Join(err, sp.close()) }()

	repeated := s.c.known(m.end)
	count := 0
	err = s.asm.transaction(ctx, sp, partLimit{s.c.cfg.PartChanges, s.c.cfg.PartBytes}, func(changes []Change, more bool) error {
		count += len(changes)
		if !more { // before the sink can acknowledge it
			s.c.begins(s.asm.epoch, m.end)
		}
		if repeated || count == 0 {
			return nil
		}
		tx := &Tx{
			Shard: s.c.cfg.Shard, Epoch: s.asm.epoch, Commit: m.commit, End: m.end,
			XID: m.xid, CommitTime: m.time, More: more, Changes: changes,
		}
		if more {
			tx.End = m.commit
		}
		s.c.hand(tx.End)
		if err := s.sink.Publish(ctx, tx); err != nil {
			return fmt.Errorf("%w: publish: %w", errSink, err)
		}
		return nil
	})
	if err != nil || repeated {
		return err
	}
	if count == 0 {
		return s.progress(ctx, m.end)
	}
	s.c.deliver(m.end)
	signal(s.commits)
	return nil
}

// progress hands a position over that lies beyond everything before it.
func (s *stream) progress(ctx context.Context, l lsn.LSN) error {
	if !s.c.hand(l) {
		return nil
	}
	if err := s.sink.Progress(ctx, Progress{Shard: s.c.cfg.Shard, Epoch: s.asm.epoch, LSN: l}); err != nil {
		return fmt.Errorf("%w: progress: %w", errSink, err)
	}
	return nil
}

// hand records what the sink is about to be given, for it may acknowledge at once. It says whether that is new.
func (c *Capture) hand(l lsn.LSN) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l <= c.handed {
		return false
	}
	c.handed = l
	return true
}

func (c *Capture) deliver(l lsn.LSN) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.delivered = max(c.delivered, l)
}

func (c *Capture) known(l lsn.LSN) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return l <= c.delivered
}

// begins records that an epoch begins with the transaction that ends at l.
func (c *Capture) begins(e lsn.Epoch, l lsn.LSN) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.histories[len(c.histories)-1].epoch < e {
		c.histories = append(c.histories, history{epoch: e, from: l})
		c.log.Info("epoch raised", "epoch", e, "at", l)
	}
}
