package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// forks runs on one OS thread that lives as long as this process: the kernel ends a child when the *thread* that forked it
// ends (see attributes), so that nothing is left behind however this process goes.
var forks = func() chan<- func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range c {
			f()
		}
	}()
	return c
}()

// start is cmd.Start for children that must not outlive this process.
func start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = attributes()
	}
	done := make(chan error)
	forks <- func() { done <- cmd.Start() }
	return <-done
}

// command is a program that ends when ctx does.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// output runs a program and returns what it printed.
func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := command(ctx, name, args...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", name, err, tail(complaints.Bytes()))
	}
	return out.String(), nil
}

// Limits of a proxy's life.
const (
	startTimeout = 20 * time.Second // from fork until it takes connections
	stopTimeout  = 5 * time.Second  // from SIGTERM until SIGKILL; its clients are gone by then
)

// start starts the peer's process, on a new port, and waits until it takes connections. Direct has none.
func (p *peer) start(ctx context.Context) error {
	if p.command == nil {
		return nil
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	p.host, p.port = "127.0.0.1", port
	cmd, err := p.command(port)
	if err != nil {
		return err
	}
	cmd.Stderr = os.Stderr
	if err := start(cmd); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.process, p.ended = cmd.Process, make(chan struct{})
	go func() { // waited for through ended
		defer close(p.ended)
		_ = cmd.Wait() // how a pooler reports its own end is of no interest here
	}()
	deadline := time.NewTimer(startTimeout)
	defer deadline.Stop()
	for {
		c, err := net.Dial("tcp", net.JoinHostPort(p.host, strconv.Itoa(port)))
		if err == nil {
			return c.Close()
		}
		select {
		case <-time.After(50 * time.Millisecond):
			continue
		case <-p.ended:
			err = fmt.Errorf("%s ended while starting: %s", p.name, cmd.ProcessState)
		case <-deadline.C:
			err = fmt.Errorf("%s does not answer on port %d", p.name, port)
		case <-ctx.Done():
			err = ctx.Err()
		}
		return errors.Join(err, p.stop())
	}
}

// stop ends the peer's process and waits for that. Stopping what is stopped does nothing.
func (p *peer) stop() error {
	if p.process == nil {
		return nil
	}
	process := p.process
	p.process = nil
	_ = process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopTimeout):
	}
	_ = process.Kill()
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopTimeout):
		return fmt.Errorf("%s (process %d) does not end", p.name, process.Pid)
	}
}

// usage is what a process has used and holds.
type usage struct {
	user, system   time.Duration // of all its threads together, in steps of 10 ms
	resident, peak int64         // bytes
}

// clockTick is 1/sysconf(_SC_CLK_TCK), the same on every Linux.
const clockTick = 10 * time.Millisecond

// usage reads /proc. Direct has no process of its own and uses nothing.
func (p *peer) usage() (u usage, err error) {
	if p.process == nil {
		return u, nil
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.process.Pid))
	if err != nil {
		return u, fmt.Errorf("%s: %w", p.name, err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // the name before it may hold anything
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return u, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return u, err
	}
	u.user, u.system = time.Duration(user)*clockTick, time.Duration(system)*clockTick
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.process.Pid))
	if err != nil {
		return u, fmt.Errorf("%s: %w", p.name, err)
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			u.resident = kb << 10
		case "VmHWM":
			u.peak = kb << 10
		}
	}
	return u, nil
}

func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return ln.Addr().(*net.TCPAddr).Port, ln.Close()
}
