package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeManager is a service manager's end of NOTIFY_SOCKET.
func fakeManager(t *testing.T) (n *notifier, hear func() string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return newNotifier(slog.New(slog.DiscardHandler)), func() string {
		b := make([]byte, 4096)
		if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		k, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:k])
	}
}

func TestNotify(t *testing.T) {
	n, hear := fakeManager(t)
	n.ready("serving shop")
	if diff := cmp.Diff("READY=1\nSTATUS=serving shop", hear()); diff != "" {
		t.Error(diff)
	}
	n.reloading()
	first, clock, _ := strings.Cut(hear(), "\nMONOTONIC_USEC=")
	if usec, err := strconv.ParseInt(clock, 10, 64); first != "RELOADING=1" || err != nil || usec <= 0 {
		t.Errorf("%q at %q: %v", first, clock, err)
	}
	n.stopping()
	if diff := cmp.Diff("STOPPING=1\nSTATUS=draining", hear()); diff != "" {
		t.Error(diff)
	}
	n.handedOver(42)
	if diff := cmp.Diff("MAINPID=42", hear()); diff != "" {
		t.Error(diff)
	}
	ctx, stop := context.WithCancel(t.Context())
	go n.watch(ctx, time.Millisecond, func(context.Context) bool { return true })
	if diff := cmp.Diff("WATCHDOG=1", hear()); diff != "" {
		t.Error(diff)
	}
	stop()
}

// A watchdog is petted only while the loops turn.
func TestWatchdogWithoutAnswer(t *testing.T) {
	n, hear := fakeManager(t)
	ctx, stop := context.WithCancel(t.Context())
	asked := 0
	n.watch(ctx, time.Millisecond, func(context.Context) bool {
		if asked++; asked == 3 {
			stop()
		}
		return false
	})
	n.send("END=1")
	if got := hear(); got != "END=1" {
		t.Errorf("heard %q from a process whose loops stand still", got)
	}
}

func TestWatchdogInterval(t *testing.T) {
	for _, test := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"30000000", "", 15 * time.Second},
		{"30000000", strconv.Itoa(os.Getpid()), 15 * time.Second},
		{"30000000", "1", 0}, // meant for another process
		{"soon", "", 0},
		{"-1", "", 0},
	} {
		env := map[string]string{"WATCHDOG_USEC": test.usec, "WATCHDOG_PID": test.pid}
		if got := watchdogInterval(func(name string) string { return env[name] }); got != test.want {
			t.Errorf("%v: %v, want %v", env, got, test.want)
		}
	}
}
