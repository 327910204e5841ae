package loop

import (
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
	unused  int      // how many of them nothing has used in this window
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
	batches atomic.Uint64
	stalls  atomic.Uint64
	polls   atomic.Uint64
	sleeps  atomic.Uint64
	wakeups atomic.Uint64
}

func newEventLoop(e *epoll, index int) (*eventLoop, error) {
	l := &eventLoop{eng: e, index: index, ep: -1, wakeFd: -1, tasks: map[*Task]struct{}{}, events: make([]unix.EpollEvent, maxEvents), clock: now(), batch: newBatch(e.cfg.NoUring)}
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
	if t.state != parked || l.shed == 0 {
		return
	}
	if l.sendLates(); t.state == parked { // what it wrote late may have failed, and so ended its wait
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

func (l *eventLoop) closeDescriptors() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.dropRing()
	for _, fd := range [2]int{l.ep, l.wakeFd} {
		if fd >= 0 {
			_ = unix.Close(fd) // neither has data to lose
		}
	}
}
