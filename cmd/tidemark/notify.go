package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// notifier tells a service manager about this process, as sd_notify(3) does. Without NOTIFY_SOCKET it does nothing.
type notifier struct {
	socket string
	log    *slog.Logger
	up     atomic.Bool // it was told that this process is ready
}

func newNotifier(log *slog.Logger) *notifier {
	return &notifier{socket: os.Getenv("NOTIFY_SOCKET"), log: log}
}

// send tells one state, as lines of VARIABLE=value.
func (n *notifier) send(lines ...string) {
	if n.socket == "" {
		return
	}
	if err := n.write(strings.Join(lines, "\n")); err != nil {
		n.log.Warn("the service manager could not be told", "error", err)
	}
}

func (n *notifier) write(state string) error {
	name := n.socket
	if strings.HasPrefix(name, "@") { // the abstract namespace
		name = "\x00" + name[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	_, err = conn.Write([]byte(state))
	return errors.Join(err, conn.Close())
}

func (n *notifier) ready(status string) {
	n.up.Store(true)
	n.send("READY=1", "STATUS="+status)
}

// reloading and reloaded are told of a process that is ready: READY=1 at the end of a reload would make it so.
func (n *notifier) reloading() {
	if n.up.Load() {
		n.send("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(monotonicMicros(), 10))
	}
}

func (n *notifier) reloaded(status string) {
	if n.up.Load() {
		n.ready(status)
	}
}

func (n *notifier) stopping() { n.send("STOPPING=1", "STATUS=draining") }

// handedOver names the process that goes on in this one's place.
func (n *notifier) handedOver(pid int) { n.send("MAINPID=" + strconv.Itoa(pid)) }

// watchdogInterval is how often the service manager wants to hear from this process; 0: not at all.
func watchdogInterval(environ func(string) string) time.Duration {
	if pid := environ("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	usec, err := strconv.ParseInt(environ("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return 0
	}
	return time.Duration(usec) * time.Microsecond / 2
}

// watch pets the watchdog for as long as alive answers, until ctx ends. alive must return when its context ends.
func (n *notifier) watch(ctx context.Context, every time.Duration, alive func(context.Context) bool) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asked, stop := context.WithTimeout(ctx, every)
		if alive(asked) {
			n.send("WATCHDOG=1")
		} else if ctx.Err() == nil {
			n.log.Error("the loops do not turn; the service manager is not told that all is well")
		}
		stop()
	}
}
