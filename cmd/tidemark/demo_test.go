package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/tidemarkdb/tidemark/internal/config"
	"github.com/tidemarkdb/tidemark/internal/localstack"
)

// demoRunning is a demo with nothing behind it.
func demoRunning(t *testing.T) *running {
	t.Helper()
	server := func(port int) *localstack.Server { return &localstack.Server{Host: localstack.Host, Port: port} }
	stack := &localstack.Stack{
		Dir:     t.TempDir(),
		Kafka:   &localstack.Kafka{Brokers: []string{"127.0.0.1:30001"}},
		Elastic: &localstack.Elastic{URL: "http://127.0.0.1:30002"},
		Redis:   &localstack.Redis{Addr: "127.0.0.1:30003"},
	}
	for i, s := range demoShards {
		stack.Postgres = append(stack.Postgres, &localstack.Postgres{
			Name: s.name, Version: "18", Primary: server(20001 + 10*i), Replicas: []*localstack.Server{server(20002 + 10*i)},
		})
	}
	up := &running{stack: stack, addresses: demoAddresses{"127.0.0.1:6432", "127.0.0.1:9632", "127.0.0.1:9633"}}
	var err error
	if up.config, err = writeDemoConfig(stack, up.addresses); err != nil {
		t.Fatal(err)
	}
	return up
}

func TestDemoConfigIsValid(t *testing.T) {
	c, err := config.Load(demoRunning(t).config)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := summary(c), "2 shards, 4 servers, 4 tables, 3 captured, 4 views, 1 user"; got != want {
		t.Errorf("it describes %s, want %s", got, want)
	}
}

// The page fits on a terminal of 25 lines, and each command on one line of a usual window.
func TestPageFitsOnAScreen(t *testing.T) {
	var b bytes.Buffer
	demoRunning(t).printPage(&b, time.Minute)
	page := b.String()
	if lines := strings.Count(page, "\n"); lines > 25 {
		t.Errorf("the page has %d lines:\n%s", lines, page)
	}
	for line := range strings.Lines(page) {
		if width := utf8.RuneCountInString(line); width > 150 {
			t.Errorf("%d characters: %s", width, line)
		}
	}
	if got := strings.Count(page, "\n  psql $DB -c "); got != len(demoCommands) {
		t.Errorf("%d commands, want %d:\n%s", got, len(demoCommands), page)
	}
}

func TestDemoFolder(t *testing.T) {
	empty, earlier, other := t.TempDir(), t.TempDir(), t.TempDir()
	for _, f := range []string{filepath.Join(earlier, "ports.json"), filepath.Join(earlier, "lock"), filepath.Join(other, "thesis.tex")} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		d    demo
		want string // part of the error; empty: none
	}{
		{demo{}, ""},
		{demo{keep: true}, "--keep needs --data"},
		{demo{dir: empty}, ""},
		{demo{dir: earlier}, ""},
		{demo{dir: filepath.Join(empty, "new")}, ""},
		{demo{dir: other}, "not of an earlier demo"},
	} {
		err := test.d.checkDir()
		var usage usageError
		switch {
		case test.want == "" && err != nil:
			t.Errorf("checkDir(%+v) = %v", test.d, err)
		case test.want != "" && (!errors.As(err, &usage) || !strings.Contains(err.Error(), test.want)):
			t.Errorf("checkDir(%+v) = %v, want a usage error with %q", test.d, err, test.want)
		}
	}
}

// A demo ends when its time is over, or at Ctrl-C.
func TestDemoWaits(t *testing.T) {
	for name, test := range map[string]struct {
		lasts, stopped time.Duration // 0: it does not end so
		want           time.Duration
	}{
		"its time is over": {lasts: time.Minute, want: time.Minute},
		"Ctrl-C":           {lasts: time.Hour, stopped: time.Second, want: time.Second},
		"only Ctrl-C":      {stopped: 24 * time.Hour, want: 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := &running{proxy: &child{ended: make(chan struct{})}, projector: &child{ended: make(chan struct{})}}
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				if test.stopped > 0 {
					defer time.AfterFunc(test.stopped, stop).Stop()
				}
				begun := time.Now()
				if err := up.wait(ctx, test.lasts); err != nil || time.Since(begun) != test.want {
					t.Errorf("it ended after %v, %v; want %v", time.Since(begun), err, test.want)
				}
			})
		})
	}
}

func TestProgressWithoutATerminal(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(&b, false)
	one, two := p.start("load orders"), p.start("kafka")
	one.update("5,000")
	one.done("100,000 rows")
	two.failed()
	p.line("·", "a remark")
	p.close()
	got := regexp.MustCompile(` +[0-9]+\.[0-9]s`).ReplaceAllString(b.String(), " TIME")
	want := "✓ TIME  load orders            100,000 rows\n✗ TIME  kafka\n· TIME  a remark\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// On a terminal the running steps are on one line, which is erased before anything else is written.
func TestProgressOnATerminal(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(&b, true)
	p.start(strings.Repeat("a long name ", 20)).update("1")
	for until, frames := time.Now().Add(30*time.Second), 0; frames < 2; time.Sleep(redraw) {
		if time.Now().After(until) {
			t.Fatal("the line is not drawn")
		}
		p.mu.Lock()
		frames = p.frame
		p.mu.Unlock()
	}
	p.line("·", "a remark")
	p.close()
	for frame := range strings.SplitSeq(b.String(), "\r\x1b[K") { // what is erased is the line that the cursor is on
		if line := frame[strings.LastIndex(frame, "\n")+1:]; utf8.RuneCountInString(line) > liveWidth {
			t.Errorf("%q would wrap, and not be erased whole", line)
		}
	}
	if !strings.Contains(b.String(), "a long name") || !strings.Contains(b.String(), "a remark\n") {
		t.Errorf("the steps are not shown: %q", b.String())
	}
}

func TestLeash(t *testing.T) {
	r, w := io.Pipe()
	free, cancelFree := leashed(t.Context(), false, r)
	defer cancelFree(nil)
	held, cancel := leashed(t.Context(), true, r)
	defer cancel(nil)
	if _, err := w.Write([]byte("anything")); err != nil {
		t.Fatal(err)
	}
	if held.Err() != nil {
		t.Error("the context ended before its input did")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-held.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the context did not end with its input")
	}
	if got := stopReason(held); got != errLeash.Error() {
		t.Errorf("stopReason() = %q", got)
	}
	if free.Err() != nil {
		t.Error("without a leash the context ended with the input")
	}
}
