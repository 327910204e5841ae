package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is one child of the program: a proxy or a projector, which can be killed and started again on the same addresses.
type process struct {
	t    *testing.T
	name string
	http string // host:port
	args []string
	log  string

	mu    sync.Mutex // guards what follows
	cmd   *exec.Cmd
	leash io.Closer
	ended chan struct{}
}

// newProcess does not start it. When the test ends it is stopped, and its log is searched for secrets.
func newProcess(t *testing.T, name, http string, args ...string) *process {
	p := &process{t: t, name: name, http: http, args: args, log: filepath.Join(t.TempDir(), name+".log")}
	t.Cleanup(func() {
		p.kill()
		b, err := os.ReadFile(p.log)
		if err != nil {
			t.Error(err)
		}
		noSecrets(t, "the log of "+name, string(b))
		if t.Failed() {
			lines := strings.Split(strings.TrimSpace(string(b)), "\n")
			t.Logf("the end of the log of %s:\n%s", name, strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
	})
	return p
}

// start forks the process; it ends with this one, however that ends.
func (p *process) start() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the child has its own descriptor
	cmd := exec.Command(fixture.binary, append(p.args, "--leash")...)
	cmd.Env = append(os.Environ(), "E2E_OWNER_PASSWORD="+ownerPassword, "E2E_APP_PASSWORD="+appPassword)
	cmd.Stdout, cmd.Stderr = log, log
	leash, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the exit status stays in cmd.ProcessState
		close(ended)
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.leash, p.ended = cmd, leash, ended
	return nil
}

// kill is SIGKILL; it returns when the process is gone.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
	_ = p.leash.Close()
	p.cmd = nil
}

// stop is SIGTERM; it returns the exit code.
func (p *process) stop(ctx context.Context) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// ready waits until /ready answers 200.
func (p *process) ready(ctx context.Context) error {
	err := poll(ctx, func(ctx context.Context) error {
		p.mu.Lock()
		ended := p.ended
		p.mu.Unlock()
		select {
		case <-ended:
			return errors.New("it has ended")
		default:
		}
		code, body, err := p.get(ctx, "/ready")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("%d %s", code, body)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s is not ready: %w", p.name, err)
	}
	return nil
}

// get asks one of the process's HTTP endpoints.
func (p *process) get(ctx context.Context, path string) (code int, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.http+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), errors.Join(err, resp.Body.Close())
}

// health is /health's answer: its code, and the error of each check by name, empty for those that are well.
func (p *process) health(ctx context.Context) (code int, status string, checks map[string]string, err error) {
	code, body, err := p.get(ctx, "/health")
	if err != nil {
		return 0, "", nil, err
	}
	var report struct {
		Status string
		Checks []struct{ Name, Error string }
	}
	if err := json.Unmarshal([]byte(body), &report); err != nil {
		return 0, "", nil, fmt.Errorf("%w in %s", err, body)
	}
	checks = map[string]string{}
	for _, c := range report.Checks {
		checks[c.Name] = c.Error
	}
	return code, report.Status, checks, nil
}

// metric is the sum of a metric's samples whose labels contain all of the given text.
func (p *process) metric(ctx context.Context, name string, labels ...string) (sum float64, found bool, err error) {
	_, body, err := p.get(ctx, "/metrics")
	if err != nil {
		return 0, false, err
	}
next:
	for line := range strings.Lines(body) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(rest, l) {
				continue next
			}
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, false, err
		}
		sum, found = sum+v, true
	}
	return sum, found, nil
}

// noSecrets fails the test when a password of it is in the text.
func noSecrets(t *testing.T, what, text string) {
	t.Helper()
	for _, s := range secrets {
		if strings.Contains(text, s) {
			t.Errorf("%s contains the password %s", what, s)
		}
	}
}
