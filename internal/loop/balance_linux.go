package loop

import (
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// balance says when tasks move between loops. The first loop is filled before the next is woken, because two loops that
// are half idle cost 1.5 times the CPU of one (measured): each pays for its own sleeping and waking.
type balance struct {
	window    time.Duration // over which load is measured
	saturated int64         // per mille of a CPU: a loop above gets no new tasks, and gives some to a calm one
	calm      int64         // a loop below may take tasks; two that are below together become one
}

var defaultBalance = balance{window: 50 * time.Millisecond, saturated: 850, calm: 500}

// shedFraction is the part of its active tasks, 1/n, that a saturated loop gives away per window. Small, because the other
// loop's load shows only a window later.
const shedFraction = 8

// balancer measures a loop and decides what it gives away.
type balancer struct {
	windowStart int64 // by now
	slept       int64 // nanoseconds in this window
	active      int   // tasks that ran in this window
	used        int64 // CPU time of the stints of this window, nanoseconds
	known       int64 // how long these stints took
	stint       stint

	shed   int        // how many of the next tasks that park are to move
	shedTo *eventLoop // where to

	measured    atomic.Int64 // load of the last window, per mille
	asleepSince atomic.Int64 // by now; 0: awake
	migrations  atomic.Uint64
}

// load returns the part of a CPU that l uses, per mille. From any thread.
func (l *eventLoop) load(now int64) int64 {
	if since := l.asleepSince.Load(); since != 0 && now-since > int64(l.eng.balance.window) {
		return 0
	}
	return l.measured.Load()
}

// place chooses the loop for a new task.
func (e *epoll) place() *eventLoop {
	at := now()
	best, least := e.loops[0], int64(math.MaxInt64)
	for _, l := range e.loops {
		load := l.load(at)
		if load < e.balance.saturated {
			return l
		}
		if load < least {
			best, least = l, load
		}
	}
	return best
}

func (l *eventLoop) countActive(t *Task) {
	if t.window != l.windowStart {
		t.window = l.windowStart
		l.active++
	}
}

func (l *eventLoop) fallAsleep() int64 {
	l.asleepSince.Store(l.clock)
	return l.clock
}

func (l *eventLoop) wakeUp(before int64) int64 {
	l.asleepSince.Store(0)
	at := now()
	l.slept += at - before
	return at
}

// rebalance ends a window: it publishes the load and decides what to give away in the next one.
func (l *eventLoop) rebalance() {
	wall := l.clock - l.windowStart
	if wall < int64(l.eng.balance.window) {
		return
	}
	l.newStint(true)
	busy := wall - l.slept
	if l.known > 0 {
		busy = min(busy, l.used*wall/l.known)
	}
	load := busy * 1000 / wall
	l.measured.Store(load)
	l.shed, l.shedTo = l.decide(load)
	l.trim()
	l.windowStart, l.slept, l.active, l.used, l.known = l.clock, 0, 0, 0, 0
}

// stint is a time that the loop spends on one thread. Its CPU time is the load: what the system gave to other processes
// meanwhile is not, for a second loop would not help, it would compete with them too.
type stint struct {
	begun  int64 // by now
	cpu    int64 // the thread's CPU time then, nanoseconds
	thread int
}

// newStint begins one at l.clock. The one before counts unless the loop may have had another thread in the middle of it.
func (l *eventLoop) newStint(count bool) {
	cpu, thread := threadCPU()
	if s := l.stint; count && s.thread == thread {
		l.used += cpu - s.cpu
		l.known += l.clock - s.begun
	}
	l.stint = stint{l.clock, cpu, thread}
}

// load of this loop        another loop                          gives away
// saturated, >1 active     first one that is calm                1/shedFraction of the active tasks
// calm, not the first      an earlier one; both together calm    all that run
// otherwise                                                      nothing
func (l *eventLoop) decide(load int64) (int, *eventLoop) {
	b := &l.eng.balance
	for _, other := range l.eng.loops {
		if other == l {
			continue
		}
		otherLoad := other.load(l.clock)
		switch {
		case load >= b.saturated && l.active > 1 && otherLoad < b.calm:
			return max(1, l.active/shedFraction), other
		case other.index < l.index && load+otherLoad < b.calm:
			return math.MaxInt, other
		}
	}
	return 0, nil
}

// migrate sends a parked task to shedTo, for which nothing waits to be sent. Its connections follow when it arrives, or when it next waits for
// them.
func (l *eventLoop) migrate(t *Task) {
	l.shed--
	for _, s := range t.set {
		if s.Conn != nil {
			s.Conn.waiter.Store(nil)
		}
	}
	l.timers.remove(t)
	delete(l.tasks, t)
	l.migrations.Add(1)
	t.state = transit
	t.loop.Store(l.shedTo) // from here on t belongs to the other loop
	l.shedTo.post(mail{t, mailArrive})
}

// arrive lets t go on with its wait here.
func (l *eventLoop) arrive(t *Task) {
	l.tasks[t] = struct{}{}
	for _, s := range t.set {
		if s.Conn != nil && !l.take(s.Conn) {
			l.enqueue(t, Ready) // it has another waiter: let the task's next Wait say so
			return
		}
	}
	if cause, now := t.look(t.set); now {
		l.unpark(t, cause)
	} else if !l.park(t) {
		l.enqueue(t, Ready)
	}
}

// threadCPU returns the CPU time of the calling thread in nanoseconds, and which thread that is.
func threadCPU() (int64, int) {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0, -1
	}
	return ts.Nano(), unix.Gettid()
}
