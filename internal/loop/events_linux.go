package loop

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// poll takes events without blocking.
func (l *eventLoop) poll() {
	l.polls.Add(1)
	l.dispatch(l.events[:epollNow(l.ep, l.events)])
}

// sleep blocks until there is an event, a timer or mail.
func (l *eventLoop) sleep() {
	timeout := -1
	if len(l.stacks) > minStacks {
		timeout = int(max(1, l.eng.balance.window/time.Millisecond)) // see trim
	}
	if len(l.timers) > 0 {
		wait := l.timers[0].timerAt - l.clock
		if wait <= 0 {
			return
		}
		wait = min((wait+int64(time.Millisecond)-1)/int64(time.Millisecond), 1<<30)
		if timeout < 0 || int(wait) < timeout {
			timeout = int(wait)
		}
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
