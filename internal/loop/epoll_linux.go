package loop

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

const epollSupported = true

// NewEpoll starts the engine with event loops and coroutines. It raises GOMAXPROCS to more than the number of loops.
func NewEpoll(cfg EpollConfig) (Engine, error) {
	e, err := newEpoll(cfg, defaultBalance)
	if err != nil {
		return nil, err
	}
	return e, nil
}

func newEpoll(cfg EpollConfig, b balance) (*epoll, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	e := &epoll{cfg: cfg, balance: b, idle: make(chan struct{})}
	for i := range cfg.Loops {
		l, err := newEventLoop(e, i)
		if err != nil {
			for _, l := range e.loops {
				l.closeDescriptors()
			}
			return nil, fmt.Errorf("loop: start event loop %d of %d: %w", i+1, cfg.Loops, err)
		}
		e.loops = append(e.loops, l)
	}
	reserveProcs(cfg.Loops)
	for _, l := range e.loops {
		e.running.Go(l.drive)
	}
	return e, nil
}

// epoll is the engine with event loops.
type epoll struct {
	cfg     EpollConfig
	balance balance
	loops   []*eventLoop
	running sync.WaitGroup // loops
	conns   connTable
	lastGen atomic.Uint32 // generation of the latest registration of any descriptor

	closing atomic.Bool // every Wait returns Closing
	killed  atomic.Bool // every Wait unwinds its task

	mu      sync.Mutex    // guards the fields below
	held    int           // tasks that have not ended; those that let a closed connection linger count
	stopped bool          // closing and nothing held: the loops are told to stop, later tasks run detached
	idle    chan struct{} // closed with stopped

	release         release
	tasks           atomic.Int64
	internal        atomic.Int64 // of tasks: those that closed connections leave behind
	started, panics atomic.Uint64
}

func (e *epoll) Wrap(nc net.Conn) net.Conn {
	if w, ok := nc.(*wrappedConn); ok {
		return w
	}
	return &wrappedConn{Conn: nc}
}

func (e *epoll) Adopt(nc net.Conn) (*Conn, error) {
	c, err := e.adoptSocket(nc)
	if err != nil {
		return nil, fmt.Errorf("adopt connection with %v: %w", nc.RemoteAddr(), err)
	}
	return c, nil
}

func (e *epoll) adoptSocket(nc net.Conn) (*Conn, error) {
	if e.closing.Load() {
		return nil, ErrEngineClosed
	}
	raw, secure := nc, (*tlsSocket)(nil)
	if tc, ok := nc.(*tls.Conn); ok {
		w, ok := tc.NetConn().(*wrappedConn)
		if !ok {
			return nil, fmt.Errorf("TLS over %T: the connection under TLS must come from Engine.Wrap before the handshake", tc.NetConn())
		}
		if !tc.ConnectionState().HandshakeComplete {
			return nil, errors.New("the TLS handshake must be complete, because an event loop never blocks")
		}
		raw = w
		secure = &tlsSocket{conn: tc, wrapped: w, limit: e.cfg.TLSBuffer}
	}
	if w, ok := raw.(*wrappedConn); ok {
		if w.sock.Load() != nil {
			return nil, errors.New("it was adopted before")
		}
		if len(w.ahead) > 0 {
			return nil, errors.New("what it was given back has not been read")
		}
		raw = w.Conn
	}
	fd, err := takeDescriptor(raw)
	if err != nil {
		return nil, err
	}
	// Until a loop reports, try: a wrong guess costs one EAGAIN.
	bits := bitReadable | bitWritable
	if secure != nil {
		bits |= bitPending // the handshake may have read more than its own records
	}
	c, err := e.newConn(fd, nc.LocalAddr(), nc.RemoteAddr(), bits)
	if err != nil {
		return nil, err
	}
	if secure != nil {
		c.tls = secure
		secure.wrapped.sock.Store(c)
	}
	// The descriptor is duplicated, so this closes the original and takes it out of the runtime's own poller.
	if err := raw.Close(); err != nil {
		return nil, errors.Join(fmt.Errorf("close original descriptor: %w", err), c.free())
	}
	return c, nil
}

// newConn is a connection over a descriptor, which it closes when it fails.
func (e *epoll) newConn(fd int, local, remote net.Addr, bits uint64) (*Conn, error) {
	c := &Conn{local: local, remote: remote}
	c.eng, c.fd = e, fd
	c.state.Store(uint64(e.nextGen())<<32 | bits)
	if err := e.conns.put(fd, c); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return c, nil
}

// takeDescriptor duplicates the descriptor under nc. O_NONBLOCK, TCP_NODELAY and keep-alive belong to what both
// descriptors refer to, so they stay as they are.
func takeDescriptor(nc net.Conn) (int, error) {
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return 0, fmt.Errorf("the epoll engine cannot take over a %T: use a TCP or Unix connection, or the goroutine engine", nc)
	}
	rc, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("get descriptor: %w", err)
	}
	fd, dupErr := -1, error(nil)
	if err := rc.Control(func(orig uintptr) { fd, dupErr = unix.FcntlInt(orig, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return 0, fmt.Errorf("use descriptor: %w", err)
	}
	if dupErr != nil {
		return 0, fmt.Errorf("duplicate descriptor: %w", dupErr)
	}
	return fd, nil
}

func (e *epoll) Go(f func(t *Task)) { e.spawn(e.place(), f, false) }

// spawn starts a task on l. An internal task does not see Closing.
func (e *epoll) spawn(l *eventLoop, f func(t *Task), internal bool) {
	t := &Task{}
	t.eng, t.body, t.internal, t.timerPos = e, f, internal, -1
	e.mu.Lock()
	detached := e.stopped
	if !detached {
		e.held++
	}
	e.mu.Unlock()
	e.tasks.Add(1)
	if internal {
		e.internal.Add(1)
	}
	e.started.Add(1)
	e.freed(1)
	if detached {
		go t.runDetached()
		return
	}
	t.loop.Store(l)
	l.post(mail{t, mailStart})
}

// ended accounts for a task that has ended, and stops the loops behind the last one.
func (e *epoll) ended(t *Task) {
	e.uncount(t)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.held--
	e.stopIfIdle()
}

func (e *epoll) uncount(t *Task) {
	e.tasks.Add(-1)
	if t.internal {
		e.internal.Add(-1)
	}
}

// stopIfIdle needs e.mu.
func (e *epoll) stopIfIdle() {
	if e.held > 0 || e.stopped || !e.closing.Load() {
		return
	}
	e.stopped = true
	for _, l := range e.loops {
		l.post(mail{nil, mailStop})
	}
	close(e.idle)
}

func (e *epoll) Close(ctx context.Context) error {
	if !e.closing.Swap(true) {
		e.tellAll()
		e.mu.Lock()
		e.stopIfIdle()
		e.mu.Unlock()
	}
	select {
	case <-e.idle:
		e.running.Wait()
		return nil
	case <-ctx.Done():
	}
	internal := e.internal.Load() // before tasks: what ends between the two must not count as one of those
	n := e.tasks.Load() - internal
	e.killed.Store(true)
	e.tellAll()
	if n <= 0 {
		return nil
	}
	return fmt.Errorf("loop: close: %d tasks still running: %w", n, context.Cause(ctx))
}

// tellAll makes every loop show all its waiting tasks that closing or killed has changed.
func (e *epoll) tellAll() {
	for _, l := range e.loops {
		l.post(mail{nil, mailClosing})
	}
}

func (e *epoll) Stats() Stats {
	s := Stats{Tasks: e.tasks.Load(), Started: e.started.Load(), Panics: e.panics.Load()}
	at := now()
	for _, l := range e.loops {
		s.Resumes += l.resumes.Load()
		s.Rests += l.rests.Load()
		s.Batches += l.batches.Load()
		s.Stalls += l.stalls.Load()
		s.Polls += l.polls.Load()
		s.Sleeps += l.sleeps.Load()
		s.Wakeups += l.wakeups.Load()
		s.Migrations += l.migrations.Load()
		s.Busy = append(s.Busy, float64(l.load(at))/1000)
	}
	return s
}

func (e *epoll) nextGen() uint32 { return e.lastGen.Add(1) }

// connTable finds a Conn by its descriptor, from any thread. A descriptor is a small number that is unique in the process,
// so the table is an array in pages.
type connTable struct {
	pages [maxDescriptors / connPage]atomic.Pointer[[connPage]atomic.Pointer[Conn]]
}

const (
	connPage       = 1 << 10
	maxDescriptors = 1 << 20 // the kernel's own default limit (fs.nr_open)
)

func (ct *connTable) put(fd int, c *Conn) error {
	if fd >= maxDescriptors {
		return fmt.Errorf("descriptor %d is beyond the limit of %d: close connections", fd, maxDescriptors)
	}
	page := &ct.pages[fd/connPage]
	if page.Load() == nil {
		page.CompareAndSwap(nil, new([connPage]atomic.Pointer[Conn]))
	}
	page.Load()[fd%connPage].Store(c)
	return nil
}

func (ct *connTable) get(fd int) *Conn {
	if fd < 0 || fd >= maxDescriptors {
		return nil
	}
	page := ct.pages[fd/connPage].Load()
	if page == nil {
		return nil
	}
	return page[fd%connPage].Load()
}

func (ct *connTable) remove(fd int, c *Conn) {
	if page := ct.pages[fd/connPage].Load(); page != nil {
		page[fd%connPage].CompareAndSwap(c, nil)
	}
}
