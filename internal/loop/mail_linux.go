package loop

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

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
