package loop

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// streamBuffer is the bound of read-ahead, and of the data that waits to be written, in bytes per connection and direction. Read-ahead
// begins with less: most clients never send so much at a time, and some have only come to knock.
const (
	streamBuffer  = 32 << 10
	streamAtFirst = 2 << 10
)

// streamConn gives a blocking net.Conn the non-blocking methods of Conn: a reader goroutine reads ahead into one ring, a
// writer goroutine, started by the first Write, empties another.
//
//	            reader                          writer
//	runs until  the stream ends or is closed    closed and nothing left to send, or linger is over
//	sleeps      in nc.Read, or while in is full in nc.Write, or while out is empty
//	owns        the free part of in             the filled part of out
type streamConn struct {
	waiter
	eng *goroutines
	nc  net.Conn

	mu      sync.Mutex // guards the fields below; never held across a call of nc.Read or nc.Write
	in, out ring
	inErr   error // what ended reading
	outErr  error // what ended writing
	writing bool  // the writer was started
	closed  bool
	linger  bool // what comes is thrown away until nc is closed
	unsent  bool // the writer closes nc, because close found unsent data
	last    bool // the peer is to read to the end, see finish.go
	leaving bool // both goroutines end, and nc goes on without them

	reading sync.WaitGroup // for the reader
	sending sync.WaitGroup // for the writer

	more chan struct{} // capacity 1: in has room again, or closed
	due  chan struct{} // capacity 1: out has data, or closed
}

func newStreamConn(e *goroutines, nc net.Conn) *streamConn {
	s := &streamConn{eng: e, nc: nc, more: make(chan struct{}, 1), due: make(chan struct{}, 1)}
	s.in.buf = make([]byte, streamAtFirst)
	s.reading.Go(s.reader)
	return s
}

func (s *streamConn) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	switch n := s.in.read(p); {
	case n > 0:
		signal(s.more)
		return n, nil
	case len(p) == 0:
		return 0, nil
	case s.inErr != nil:
		return 0, s.inErr
	}
	return 0, ErrWouldBlock
}

func (s *streamConn) write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return 0, net.ErrClosed
	case s.outErr != nil:
		return 0, s.outErr
	}
	if !s.writing {
		s.writing = true
		s.out.buf = make([]byte, streamBuffer)
		s.sending.Go(s.writer)
	}
	n := s.out.write(p)
	signal(s.due)
	if n < len(p) {
		return n, ErrWouldBlock
	}
	return n, nil
}

func (s *streamConn) ready(what Interest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return true
	case what&Readable != 0 && (s.in.n > 0 || s.inErr != nil):
		return true
	case what&Writable != 0 && (!s.writing || s.out.n < len(s.out.buf) || s.outErr != nil):
		return true
	}
	return what&Hangup != 0 && (s.inErr != nil || s.outErr != nil)
}

// close never blocks: what is left to send, and the close_notify of TLS, go out in the background, and the engine's Close
// waits for that.
func (s *streamConn) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	return s.end()
}

// finish is close for a peer that is to read to the end.
func (s *streamConn) finish() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		finished()
		return net.ErrClosed
	}
	s.last = true
	return s.end()
}

// end needs s.mu.
func (s *streamConn) end() error {
	s.closed = true
	signal(s.more)
	signal(s.due)
	_, isTLS := s.nc.(*tls.Conn)
	switch {
	case s.out.n > 0 && s.outErr == nil && s.nc.SetWriteDeadline(time.Now().Add(s.eng.cfg.Linger)) == nil:
		s.linger, s.unsent = true, true
		s.eng.hold()
		return nil
	case isTLS, s.last:
		s.linger = s.last
		s.eng.hold()
		go s.closeConn()
		return nil
	}
	return s.nc.Close()
}

// closeConn ends a close that goes on in the background. An error has nobody to go to: the user of the Conn has left.
func (s *streamConn) closeConn() {
	defer s.eng.release()
	if s.last {
		defer finished()
		if closeWrite(s.nc) == nil && s.nc.SetReadDeadline(time.Now().Add(finishTime)) == nil {
			s.reading.Wait()
		}
	}
	_ = s.nc.Close()
}

// errAborted is what a Conn returns after Abort.
var errAborted = errors.New("loop: connection was aborted")

// abort makes both goroutines fail, also in the middle of a blocked call.
func (s *streamConn) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.inErr, s.outErr = errAborted, errAborted
	if s.nc.SetDeadline(time.Unix(1, 0)) != nil {
		_ = s.nc.Close() // already broken: only its resources are left to free
	}
	s.notify()
}

func (s *streamConn) reader() {
	for {
		s.mu.Lock()
		if s.linger {
			// Nobody reads any more, but a peer that is stuck in a write would not read what we still send.
			s.in.start, s.in.n = 0, 0
		}
		room, over := s.in.room(), s.leaving || s.closed && !s.linger
		s.mu.Unlock()
		if over {
			return
		}
		if len(room) == 0 {
			<-s.more
			continue
		}
		n, err := s.nc.Read(room)
		s.mu.Lock()
		s.in.n += n
		if s.in.n == len(s.in.buf) && s.in.n < streamBuffer {
			s.in.grow(streamBuffer)
		}
		if s.inErr == nil {
			s.inErr = err
		}
		s.mu.Unlock()
		s.notify()
		if err != nil {
			return
		}
	}
}

func (s *streamConn) writer() {
	for {
		s.mu.Lock()
		data, closed, failed := s.out.data(), s.closed || s.leaving, s.outErr != nil
		s.mu.Unlock()
		switch {
		case len(data) > 0 && !failed:
			n, err := s.nc.Write(data)
			s.mu.Lock()
			s.out.drop(n)
			if s.outErr == nil {
				s.outErr = err
			}
			last := s.unsent && (s.outErr != nil || s.out.n == 0)
			s.mu.Unlock()
			s.notify()
			if last {
				s.closeConn()
				return
			}
		case closed:
			return
		default:
			<-s.due
		}
	}
}

// detach has both goroutines end: the reader at once, the writer behind what it still has to send.
func (s *streamConn) detach() (net.Conn, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, net.ErrClosed
	}
	s.leaving = true
	s.mu.Unlock()
	signal(s.more)
	signal(s.due)
	err := errors.Join(s.nc.SetReadDeadline(time.Unix(1, 0)), s.nc.SetWriteDeadline(time.Now().Add(s.eng.cfg.Linger)))
	if err == nil {
		s.sending.Wait()
		s.reading.Wait()
		err = s.nc.SetDeadline(time.Time{})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.out.n > 0 {
		err = errors.Join(err, s.outErr)
	}
	if err != nil {
		return nil, errors.Join(err, s.nc.Close())
	}
	ahead := make([]byte, s.in.n)
	if s.in.read(ahead) == 0 {
		return s.nc, nil
	}
	return Unread(s.nc, ahead), nil
}

// signal sends to a channel of capacity 1 that stands for "look again".
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
