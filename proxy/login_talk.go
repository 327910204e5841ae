package proxy

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/loop"
)

// How a login waits: for its client, and for what is not the loop's business.

// read fills b with what the client sends next. io.EOF: it has left, and sent nothing of that.
func (l *login) read(b []byte) error {
	l.listen()
	defer l.silent.Store(0)
	for have := 0; have < len(b); {
		n, err := l.conn.Read(b[have:])
		have += n
		switch {
		case err == nil:
		case errors.Is(err, loop.ErrWouldBlock):
			if err := l.wait(loop.Readable); err != nil {
				return err
			}
		case errors.Is(err, io.EOF) && have > 0:
			return io.ErrUnexpectedEOF
		default:
			return err
		}
	}
	return nil
}

// write sends b, behind what waits for it.
func (l *login) write(b []byte) error {
	if len(l.out) > 0 {
		b, l.out = append(l.out, b...), nil
	}
	for len(b) > 0 {
		n, err := l.conn.Write(b)
		b = b[n:]
		if err != nil && !errors.Is(err, loop.ErrWouldBlock) {
			return err
		}
		if len(b) > 0 {
			if err := l.wait(loop.Writable); err != nil {
				return err
			}
		}
	}
	return nil
}

// wait waits for the client.
func (l *login) wait(what loop.Interest) error {
	switch l.task.Wait(l.until, loop.Source{Conn: l.conn, For: what}) {
	case loop.Timeout:
		return os.ErrDeadlineExceeded
	case loop.Closing:
		return engine.ErrClosing
	}
	if l.late.Load() && !l.told {
		return errLate
	}
	return nil
}

// await runs f, which may block until its context ends or take long, where it holds up nobody else.
func (l *login) await(f func(context.Context)) {
	l.task.Await(func() {
		ctx, stop := context.WithDeadline(context.Background(), l.until)
		defer stop()
		f(ctx)
	})
}

func (l *login) listen() { l.silent.Store(time.Now().UnixNano()) }

// evict ends the login from outside.
func (l *login) evict() {
	l.late.Store(true)
	if nc := l.handshake.Load(); nc != nil {
		_ = (*nc).SetDeadline(time.Unix(1, 0)) // it fails only where the connection is over
	}
	l.task.Wake()
}
