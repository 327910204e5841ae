package localstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Limits.
const (
	readyTimeout = 5 * time.Minute       // from fork until a service answers, also on a machine that has much else to do
	stopTimeout  = 20 * time.Second      // from the polite signal until SIGKILL
	killTimeout  = 10 * time.Second      // from SIGKILL until the kernel has reaped everything
	pollInterval = 20 * time.Millisecond // between two looks at readiness
	logTailLines = 3                     // how many of its last lines an error quotes
	logTailBytes = 2048                  // how much of a log an error looks through
)

// errEnded is in the error of a Start whose process ended by itself.
var errEnded = errors.New("ended while starting")

// Service is one local process: it can be stopped, killed, paused and started again on the same port with the same data.
// Its methods may be called from several goroutines; they take turns.
type Service struct {
	name    string
	logFile string
	stack   *Stack

	command func() (*exec.Cmd, error)   // a fresh command for each start, with path, arguments, environment and folder
	ready   func(context.Context) error // one look: nil when the service answers
	polite  syscall.Signal              // asks it to shut down cleanly
	death   syscall.Signal              // what the kernel sends when this process dies
	killed  func()                      // frees what a SIGKILL leaves in the kernel; may be nil

	turn sync.Mutex // held by Start, Stop, Kill, Pause and Resume

	mu     sync.Mutex // guards what follows
	cmd    *exec.Cmd
	exited chan struct{} // closed once cmd has been waited for
	paused []int         // processes stopped by Pause
}

// Name is unique in the stack, such as "shard0-replica0" or "kafka".
func (s *Service) Name() string { return s.name }

// LogFile is where the process writes; it is appended to by each start.
func (s *Service) LogFile() string { return s.logFile }

// PID is the process id, 0 while it is not running.
func (s *Service) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return 0
	}
	select {
	case <-s.exited:
		return 0
	default:
		return s.cmd.Process.Pid
	}
}

// Running reports whether the process is there (it may be paused).
func (s *Service) Running() bool { return s.PID() != 0 }

// Start starts the process and waits until it answers. Starting a running service does nothing.
func (s *Service) Start(ctx context.Context) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.Running() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	s.stack.report(s.name, Starting, "")
	if err := s.fork(); err != nil {
		return fmt.Errorf("localstack: start %s: %w", s.name, err)
	}
	if err := s.waitReady(ctx); err != nil {
		return errors.Join(err, s.killTree())
	}
	s.stack.report(s.name, Ready, "")
	return nil
}

func (s *Service) fork() error {
	cmd, err := s.command()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(s.logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the child has its own descriptor
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttributes(s.stack.account, s.death)
	err = s.stack.nursery.start(cmd)
	if in, ok := cmd.Stdin.(*os.File); ok {
		in.Close() //nolint:errcheck // the child has its own descriptor
	}
	if err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() { // waited for through exited
		defer close(exited)
		_ = cmd.Wait() // the exit status stays in cmd.ProcessState
	}()
	s.mu.Lock()
	s.cmd, s.exited, s.paused = cmd, exited, nil
	s.mu.Unlock()
	return nil
}

func (s *Service) waitReady(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var last error
	for {
		if last = s.ready(ctx); last == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("localstack: %s %w (%s): %s", s.name, errEnded, s.cmd.ProcessState, s.logTail())
		case <-ctx.Done():
			return fmt.Errorf("localstack: %s does not answer: %w (log: %s): %w", s.name, last, s.logFile, ctx.Err())
		case <-tick.C:
		}
	}
}

// logTail names the log and quotes its last lines.
func (s *Service) logTail() string {
	f, err := os.Open(s.logFile)
	if err != nil {
		return err.Error()
	}
	defer f.Close() //nolint:errcheck // only read
	if info, err := f.Stat(); err == nil && info.Size() > logTailBytes {
		if _, err := f.Seek(-logTailBytes, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	last := bytes.Join(lines[max(0, len(lines)-logTailLines):], []byte(" | "))
	return fmt.Sprintf("%s ends with: %s", s.logFile, last)
}

// Stop asks the process to shut down cleanly, waits, and kills it when it does not.
func (s *Service) Stop(ctx context.Context) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if !s.Running() {
		return nil
	}
	s.continueTree()
	tree := s.tree()
	_ = s.cmd.Process.Signal(s.polite) // it may have ended by itself in between
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-s.exited:
		return s.reap(tree)
	case <-ctx.Done():
	case <-timer.C:
	}
	return s.killTree()
}

// Kill ends the process and everything below it by SIGKILL, as a crash of the machine would, and waits until they are gone.
func (s *Service) Kill() error {
	s.turn.Lock()
	defer s.turn.Unlock()
	return s.killTree()
}

func (s *Service) killTree() error {
	if !s.Running() {
		return nil
	}
	tree := s.tree()
	// The leader first, so that it forks nothing more.
	for _, pid := range tree {
		_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is as good
	}
	_ = syscall.Kill(-tree[0], syscall.SIGKILL)
	err := s.reap(tree)
	if s.killed != nil && err == nil {
		s.killed()
	}
	return err
}

// abort is the quickest end that leaves nothing behind, for data that nobody wants any more: SIGKILL, or what the kernel would send
// if this process died.
func (s *Service) abort() error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if !s.Running() {
		return nil
	}
	s.continueTree()
	tree := s.tree()
	_ = s.cmd.Process.Signal(s.death) // it may have ended by itself in between
	timer := time.NewTimer(killTimeout)
	defer timer.Stop()
	select {
	case <-s.exited:
		return s.reap(tree)
	case <-timer.C:
		return s.killTree()
	}
}

// tree lists the process and its descendants; the process itself comes first.
func (s *Service) tree() []int {
	pid := s.PID()
	return append([]int{pid}, descendants(pid)...)
}

// reap waits until the process has been waited for and none of its tree is left; what lingers is killed.
func (s *Service) reap(tree []int) error {
	deadline := time.Now().Add(killTimeout)
	<-s.exited
	for _, pid := range tree[1:] {
		for alive(pid) {
			if time.Now().After(deadline) {
				return fmt.Errorf("localstack: %s: process %d survives SIGKILL", s.name, pid)
			}
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have gone in between
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// Pause stops the process and everything below it in its tracks (SIGSTOP): connections stay open and nothing answers.
func (s *Service) Pause() error {
	s.turn.Lock()
	defer s.turn.Unlock()
	pid := s.PID()
	if pid == 0 {
		return fmt.Errorf("localstack: pause %s: it is not running", s.name)
	}
	// The leader first, so that it forks nothing while its children are looked up.
	stopped := []int{pid}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("localstack: pause %s: %w", s.name, err)
	}
	for _, child := range descendants(pid) {
		if syscall.Kill(child, syscall.SIGSTOP) == nil {
			stopped = append(stopped, child)
		}
	}
	s.mu.Lock()
	s.paused = stopped
	s.mu.Unlock()
	return nil
}

// Resume lets a paused process continue.
func (s *Service) Resume() error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if !s.Running() {
		return fmt.Errorf("localstack: resume %s: it is not running", s.name)
	}
	s.continueTree()
	return nil
}

func (s *Service) continueTree() {
	s.mu.Lock()
	paused := s.paused
	s.paused = nil
	s.mu.Unlock()
	for i := len(paused) - 1; i >= 0; i-- {
		_ = syscall.Kill(paused[i], syscall.SIGCONT) // it may have been killed while paused
	}
}
