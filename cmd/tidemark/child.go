package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	childStop  = 8 * time.Second        // how long a child may take to stop by itself
	childStart = 2 * time.Minute        // and to become ready, also on a machine that has much else to do
	childPoll  = 100 * time.Millisecond // how often it is asked
	logTail    = 8                      // lines of its log that are shown when it ends unasked
)

// child is another process of this binary. It ends with this one, however this one ends: its standard input is a pipe that
// closes then, and --leash has it stop at that.
type child struct {
	name    string
	logFile string
	cmd     *exec.Cmd
	leash   io.WriteCloser
	ended   chan struct{} // closed when it has
	err     error         // of its end; valid then
}

// startChild runs this binary with the arguments and --leash, its log going to a file in dir.
func startChild(name, dir string, args ...string) (*child, error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	c := &child{name: name, logFile: filepath.Join(dir, name+".log"), ended: make(chan struct{})}
	log, err := os.OpenFile(c.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log of the %s: %w", name, err)
	}
	defer func() { _ = log.Close() }() // the child has its own descriptor
	c.cmd = exec.Command(binary, append(args, "--leash")...)
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = ownGroup() // Ctrl-C in the terminal is for this process, which stops its children in order
	if c.leash, err = c.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start the %s: %w", name, err)
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the %s: %w", name, err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

// ready waits until url answers 200.
func (c *child) ready(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, childStart, fmt.Errorf("it is not ready after %v", childStart))
	defer cancel()
	reason := ""
	for {
		why, err := getReady(ctx, url)
		if err == nil && why == "" {
			return nil
		}
		if err == nil {
			reason = why
		}
		select {
		case <-c.ended:
			return c.unexpected()
		case <-ctx.Done():
			return fmt.Errorf("the %s did not start: %w; %s\n%s", c.name, context.Cause(ctx), reason, c.tail())
		case <-time.After(childPoll):
		}
	}
}

// getReady asks /ready; why is empty when the answer is 200.
func getReady(ctx context.Context, url string) (why string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if resp.StatusCode == http.StatusOK || err != nil {
		return "", err
	}
	return strings.Join(strings.Fields(string(body)), " "), nil
}

// unexpected is the error of a child that ended unasked.
func (c *child) unexpected() error {
	why := "without an error"
	if c.err != nil {
		why = c.err.Error()
	}
	return fmt.Errorf("the %s ended: %s; the end of %s:\n%s", c.name, why, c.logFile, c.tail())
}

func (c *child) tail() string {
	log, err := os.ReadFile(c.logFile)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimRight(log, "\n"), []byte("\n"))
	return "  " + string(bytes.Join(lines[max(0, len(lines)-logTail):], []byte("\n  ")))
}

// stop asks the child to stop, waits, and kills it when it does not.
func (c *child) stop() error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the %s: %w", c.name, err)
	}
	select {
	case <-c.ended:
	case <-time.After(childStop):
		if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("kill the %s: %w", c.name, err)
		}
		<-c.ended
		return fmt.Errorf("the %s did not stop within %v and was killed; see %s", c.name, childStop, c.logFile)
	}
	if err := c.leash.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("stop the %s: %w", c.name, err)
	}
	return nil
}
