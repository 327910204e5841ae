package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// progress shows the steps of something long: a line for each that is done, with the time since the beginning, and on a terminal
// below them one line, redrawn, with those under way.
type progress struct {
	out   io.Writer
	live  bool
	begun time.Time

	mu      sync.Mutex // guards what follows, and out
	running []*step
	drawn   bool // the live line is on the screen
	frame   int

	stop, stopped chan struct{}
}

// step is one thing under way.
type step struct {
	p      *progress
	name   string
	detail string
}

// redraw is how often the live line is.
const redraw = 120 * time.Millisecond

// newProgress begins; close must be called.
func newProgress(out io.Writer, live bool) *progress {
	p := &progress{out: out, live: live, begun: time.Now(), stop: make(chan struct{}), stopped: make(chan struct{})}
	go p.draw()
	return p
}

// close takes the live line away.
func (p *progress) close() {
	close(p.stop)
	<-p.stopped
}

func (p *progress) draw() {
	defer close(p.stopped)
	if !p.live {
		return
	}
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			p.mu.Lock()
			p.erase()
			p.mu.Unlock()
			return
		case <-tick.C:
			p.mu.Lock()
			p.erase()
			p.drawRunning()
			p.mu.Unlock()
		}
	}
}

// liveWidth keeps the live line on one row of any usual terminal: a wrapped line could not be erased.
const liveWidth = 76

func (p *progress) drawRunning() {
	if len(p.running) == 0 {
		return
	}
	var parts []string
	for _, s := range p.running {
		parts = append(parts, strings.TrimSpace(s.name+" "+s.detail))
	}
	p.frame++
	spinner := []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
	text := []rune(strings.Join(parts, ", "))
	if len(text) > liveWidth-12 {
		text = append(text[:liveWidth-13], '…')
	}
	say(p.out, "%c %5.1fs  %s", spinner[p.frame%len(spinner)], time.Since(p.begun).Seconds(), string(text))
	p.drawn = true
}

func (p *progress) erase() {
	if p.drawn {
		say(p.out, "\r\x1b[K")
		p.drawn = false
	}
}

// line prints a finished line, above the live one.
func (p *progress) line(mark, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	say(p.out, "%s %5.1fs  %s\n", mark, time.Since(p.begun).Seconds(), strings.TrimRight(fmt.Sprintf(format, args...), " "))
}

// start begins a step.
func (p *progress) start(name string) *step {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &step{p: p, name: name}
	p.running = append(p.running, s)
	return s
}

// update says how far the step is; shown on the live line only.
func (s *step) update(detail string) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.detail = detail
}

// done ends the step with its line.
func (s *step) done(detail string) {
	s.end()
	s.p.line("✓", "%-22s %s", s.name, detail)
}

// failed ends the step; the error is printed by whoever gets it.
func (s *step) failed() {
	s.end()
	s.p.line("✗", "%s", s.name)
}

func (s *step) end() {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.running = slices.DeleteFunc(s.p.running, func(other *step) bool { return other == s })
}

// thousands writes a number as people read it: 100,000.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
