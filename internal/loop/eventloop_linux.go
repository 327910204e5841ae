package loop

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxEvents is how many events one poll takes. What does not fit is taken by the next one.
const maxEvents = 256

// yieldEvery is how often a loop that never sleeps tells the scheduler that it is alive. The runtime's monitor preempts a
// goroutine after 10 ms by a signal, and takes the processor of one that it then sees in a system call; each time it goes on to
// look every 20 µs for a while, which was 5 % of a busy proxy's CPU time (measured).
const yieldEvery = 9500 * time.Microsecond

// wakeDatum is the descriptor number in the epoll datum of the loop's own eventfd.
const wakeDatum = -1

// eventLoop runs tasks, one at a time, on whatever thread its goroutine is on. Except for the fields that say otherwise,
// only the loop's goroutine and the coroutine that it is resuming, which is the same thread, touch its fields.
type eventLoop struct {
	eng    *epoll
	index  int
	ep     int // epoll descriptor
	wakeFd int // eventfd that ends a sleep

	tasks   map[*Task]struct{} // all tasks of this loop
	runq    []*Task            // to be resumed, in order; each task at most once
	running []*Task            // the round that is being resumed; those before done had their turn
	done    int
	rested  uint64 // tasks of this round that are at rest
	timers  timerHeap
	events  []unix.EpollEvent
	clock   int64    // by now, read after each round of slices and after each sleep
	yielded int64    // when the scheduler was last given a turn
	current *Task    // being resumed
	stack   *stack   // that the loop runs on, or will when the task that has the thread leaves it
	going   *stack   // that drive goes on with; nil: the loop has stopped
	left    *Task    // has just left the thread, and keeps its stack
	stacks  []*stack // spare; the last one was used last and is used next
	stop    bool
	shelves [maxPools]shelf

	batch
	balancer

	mu      sync.Mutex  // guards the fields up to asleep, and the descriptors against being used when closed
	mail    []mail      // from any thread
	spare   []mail      // the other half of a double buffer
	closed  bool        // descriptors are closed
	mailed  atomic.Bool // mail is not empty
	asleep  atomic.Bool // is about to block, or blocks: whoever turns it off must write to wakeFd
	resumes atomic.Uint64
	rests   atomic.Uint64
	stalls  atomic.Uint64
	polls   atomic.Uint64
	sleeps  atomic.Uint64
	wakeups atomic.Uint64
}

// mail is a message to a loop, from any thread.
type mail struct {
	task *Task // nil: to the loop itself
	what mailKind
}

type mailKind uint8

const (
	mailStart   mailKind = iota // run a new task
	mailWake                    // Task.Wake was called
	mailResume                  // Await is over
	mailArrive                  // the task has moved here while it waits
	mailClosing                 // engine.closing or killed has been set
	mailStop                    // no task is left
)

func newEventLoop(e *epoll, index int) (*eventLoop, error) {
	l := &eventLoop{eng: e, index: index, ep: -1, wakeFd: -1, tasks: map[*Task]struct{}{}, events: make([]unix.EpollEvent, maxEvents), clock: now(), batch: newBatch()}
	var err error
	if l.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if l.wakeFd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		l.closeDescriptors()
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	// Edge-triggered, so that each write is one event and nothing ever reads the counter.
	if err := l.control(unix.EPOLL_CTL_ADD, l.wakeFd, unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: wakeDatum}); err != nil {
		l.closeDescriptors()
		return nil, err
	}
	return l, nil
}

// run is the loop, on stack s, until it stops or a task keeps s. Each iteration resumes what is runnable, and takes events, mail and
// expired timers: by a poll that does not block, and so does not tell the scheduler, while there is something to do; else by a sleep,
// which does not block either when there are events. To poll before each sleep costs more than it saves (measured).
func (l *eventLoop) run(s *stack) {
	for !l.stop {
		if !l.resumeAll(s) {
			return
		}
		l.rebalance()
		if l.clock-l.yielded >= int64(yieldEvery) {
			l.newStint(true)
			goyield()
			l.clock = now()
			l.yielded = l.clock
			l.newStint(false)
		}
		switch {
		case l.stop:
		case len(l.runq) > 0:
			l.poll()
		default:
			l.sleep()
		}
		l.takeMail()
		l.expire()
	}
	l.going = nil
}

// post delivers m and wakes the loop when it sleeps. From any thread. A loop that has stopped ignores it.
func (l *eventLoop) post(m mail) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.mail = append(l.mail, m)
	l.mailed.Store(true)
	if !l.asleep.CompareAndSwap(true, false) {
		return // it looks at its mail before it sleeps; so no write when the loop itself is the sender, either
	}
	l.wakeups.Add(1)
	// The write cannot fail: the counter never reaches its maximum of 2^64-2, and the descriptor is open.
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(l.wakeFd, one[:])
}

func (l *eventLoop) takeMail() {
	if !l.mailed.Load() {
		return
	}
	l.mu.Lock()
	mails := l.mail
	l.mail = l.spare[:0]
	l.mailed.Store(false)
	l.mu.Unlock()
	for i, m := range mails {
		l.open(m)
		mails[i] = mail{}
	}
	l.spare = mails
}

func (l *eventLoop) open(m mail) {
	t := m.task
	if t != nil && t.loop.Load() != l {
		t.loop.Load().post(m) // it moved on meanwhile
		return
	}
	switch m.what {
	case mailStart:
		l.tasks[t] = struct{}{}
		l.enqueue(t, Ready)
	case mailWake:
		if t.state == parked && t.woken.Load() {
			l.unpark(t, Woken)
		}
	case mailResume:
		l.enqueue(t, Ready)
	case mailArrive:
		l.arrive(t)
	case mailClosing:
		for t := range l.tasks {
			if t.state == parked && (!t.internal || l.eng.killed.Load()) {
				l.unpark(t, Closing)
			}
		}
	case mailStop:
		l.stop = true
	}
}

func (l *eventLoop) expire() {
	for len(l.timers) > 0 && l.timers[0].timerAt <= l.clock {
		t := l.timers[0]
		switch {
		case t.state != parked || t.deadline == 0:
			l.timers.remove(t)
		case t.deadline > l.clock:
			l.timers.set(t, t.deadline) // it was armed again meanwhile
		default:
			l.timers.remove(t)
			l.unpark(t, Timeout)
		}
	}
}

// resumeAll resumes what is in the run queue now, or goes on with the round that another stack has begun. Tasks that are queued
// meanwhile come after the next poll. It returns false when the loop has gone on on another stack.
func (l *eventLoop) resumeAll(s *stack) bool {
	if len(l.running) == 0 {
		l.running, l.runq = l.runq, l.running
	}
	for l.done < len(l.running) {
		t := l.running[l.done]
		l.running[l.done] = nil
		l.done++
		if !l.resume(s, t) {
			return false
		}
		if len(l.lates) >= maxLates {
			l.sendLates()
		}
	}
	l.sendLates()
	l.taken = 0
	l.resumes.Add(uint64(len(l.running)))
	if l.rested > 0 {
		l.rests.Add(l.rested)
		l.rested = 0
	}
	l.running, l.done = l.running[:0], 0
	before := l.clock
	l.clock = now()
	if time.Duration(l.clock-before) > l.eng.cfg.StallAfter {
		l.stalls.Add(1)
	}
	return true
}

// resume gives t the thread until it waits, rests or ends. It returns false when the loop has meanwhile gone on on another stack than
// s: because t waited on s, before it came to its end here, on whatever loop it is by now.
func (l *eventLoop) resume(s *stack, t *Task) bool {
	t.state = running
	l.current = t
	l.countActive(t)
	if t.stack != nil {
		l.sendLates() // it is in the middle of more
		l.going = t.stack
		s.yield(struct{}{})
		return true
	}
	t.run()
	if len(t.ahead.got) > 0 {
		t.ahead.keep()
	}
	l = t.loop.Load()
	l.current, t.stack = nil, nil
	if t.rest == nil {
		l.end(t)
	} else {
		l.rested++
		l.lieDown(t)
		l.waits(t)
	}
	if l.stack == s {
		return true
	}
	l.going = l.stack
	l.release(s)
	return false
}

// waits looks at a task that has just left the thread.
func (l *eventLoop) waits(t *Task) {
	if t.state == parked && l.shed > 0 {
		l.migrate(t)
	}
}

func (l *eventLoop) enqueue(t *Task, cause Cause) {
	t.state, t.cause = queued, cause
	l.runq = append(l.runq, t)
}

func (l *eventLoop) end(t *Task) {
	t.state, t.stack = ended, nil
	l.timers.remove(t)
	delete(l.tasks, t)
	l.eng.ended(t)
}

// poll takes events without blocking.
func (l *eventLoop) poll() {
	l.polls.Add(1)
	l.dispatch(l.events[:epollNow(l.ep, l.events)])
}

// sleep blocks until there is an event, a timer or mail.
func (l *eventLoop) sleep() {
	timeout := -1
	if len(l.timers) > 0 {
		wait := l.timers[0].timerAt - l.clock
		if wait <= 0 {
			return
		}
		timeout = int(min((wait+int64(time.Millisecond)-1)/int64(time.Millisecond), 1<<30))
	}
	l.asleep.Store(true)
	if l.mailed.Load() {
		l.asleep.Store(false)
		return
	}
	l.sleeps.Add(1)
	before := l.fallAsleep()
	n, err := unix.EpollWait(l.ep, l.events, timeout)
	l.asleep.Store(false)
	l.clock = l.wakeUp(before)
	if err != nil {
		if errors.Is(err, unix.EINTR) {
			return
		}
		panic(fmt.Sprintf("loop: epoll_wait: %v", err)) // the descriptor is ours and open: a bug
	}
	l.dispatch(l.events[:n])
}

// dispatch remembers what the kernel reported, and makes runnable who waited for it.
func (l *eventLoop) dispatch(events []unix.EpollEvent) {
	for i := range events {
		ev := &events[i]
		if ev.Fd == wakeDatum {
			continue
		}
		c := l.eng.conns.get(int(ev.Fd))
		if c == nil || !c.remember(uint32(ev.Pad), readinessOf(ev.Events)) {
			continue // closed, moved, or another connection by now
		}
		if c.tls != nil && ev.Events&unix.EPOLLOUT != 0 {
			c.tls.flush(c)
		}
		// The waiter can be one of another loop, when the connection has moved since remember. A task's state may
		// be looked at only after it is known to belong here.
		t := c.waiter.Load()
		if t != nil && t.loop.Load() == l && t.state == parked && c.readySocket(c.want) {
			reads := c.want&Readable != 0
			l.unpark(t, Ready)
			if reads {
				l.readAhead(t, c)
			}
		}
	}
}

// control changes the epoll set, from any thread.
func (l *eventLoop) control(op, fd int, ev unix.EpollEvent) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrEngineClosed
	}
	if err := unix.EpollCtl(l.ep, op, fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

func (l *eventLoop) closeDescriptors() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, fd := range [2]int{l.ep, l.wakeFd} {
		if fd >= 0 {
			_ = unix.Close(fd) // neither has data to lose
		}
	}
}
