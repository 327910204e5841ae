package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

// runningDemo is a `tidemark demo`, whose services all have its folder in their command line or as their working directory.
type runningDemo struct {
	t     *testing.T
	cmd   *exec.Cmd
	dir   string
	lines chan string
	ended chan error

	mu  sync.Mutex // guards out
	out bytes.Buffer
}

func startDemo(t *testing.T, args ...string) *runningDemo {
	t.Helper()
	// Not testing.T.TempDir, which the services' own user could not enter.
	parent, err := os.MkdirTemp("", "tidemark-e2e-demo-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	d := &runningDemo{t: t, dir: filepath.Join(parent, "data"), lines: make(chan string, 1000), ended: make(chan error, 1)}
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill() // it may have ended
		for _, left := range d.processes() {
			if pid, err := strconv.Atoi(left[:strings.IndexByte(left, ' ')]); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL) // the test has failed already
			}
		}
		if err := os.RemoveAll(parent); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the demo printed:\n%s", d.output())
		}
	})
	d.cmd = exec.Command(binary(t), append([]string{"demo", "--postgres", "15", "--data", d.dir}, args...)...)
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	d.cmd.Stderr = &stderr
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		in := bufio.NewScanner(stdout)
		for in.Scan() {
			d.mu.Lock()
			d.out.WriteString(in.Text() + "\n")
			d.mu.Unlock()
			d.lines <- in.Text()
		}
		close(d.lines)
		_, _ = io.Copy(io.Discard, stdout) // of a line that is too long
		err := d.cmd.Wait()
		if stderr.Len() > 0 {
			err = errors.Join(err, errors.New(stderr.String()))
		}
		d.ended <- err
	}()
	return d
}

func (d *runningDemo) output() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.String()
}

// until reads what the demo prints up to a line that contains the text.
func (d *runningDemo) until(limit time.Duration, text string) {
	d.t.Helper()
	late := time.After(limit)
	for {
		select {
		case l, ok := <-d.lines:
			if !ok {
				d.t.Fatalf("the demo ended with %v before it printed %q", <-d.ended, text)
			}
			if strings.Contains(l, text) {
				return
			}
		case <-late:
			d.t.Fatalf("the demo has not printed %q within %v", text, limit)
		}
	}
}

// processes are those that belong to the demo, itself apart.
func (d *runningDemo) processes() (found []string) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		d.t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == d.cmd.Process.Pid {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || len(cmdline) == 0 {
			continue // gone, or a zombie
		}
		cwd, _ := os.Readlink(filepath.Join("/proc", e.Name(), "cwd")) // empty when it has gone
		if bytes.Contains(cmdline, []byte(d.dir)) || strings.HasPrefix(cwd, d.dir) {
			found = append(found, fmt.Sprintf("%d %.120s", pid, bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
		}
	}
	return found
}

// alone waits until none of the demo's processes is left.
func (d *runningDemo) alone() {
	d.t.Helper()
	eventually(d.t, patience, func(context.Context) error {
		if left := d.processes(); len(left) > 0 {
			return fmt.Errorf("%d processes outlive the demo:\n%s", len(left), strings.Join(left, "\n"))
		}
		return nil
	})
}

// demoPromises is what the page's commands must print, by the words above them.
var demoPromises = map[string][]string{
	"one customer's orders: one shard, a replica":             {"(3 rows)", "route", " replica "},
	"a write: that shard's primary":                           {"UPDATE 1", " primary "},
	"all shards":                                              {" rows)", "scatter s1 ", " s2 "},
	"full text, from Elasticsearch":                           {"(5 rows)", "ed ", "shoes"},
	"write, then read the copy in Redis: never the old value": {"UPDATE 1", "Faro", "(1 row)"},
	"how far the read models are":                             {"order_search", "product_search", "customer_cache", "product_cache", "s1", "s2"},
}

// TestDemo is its whole story: it starts, prints its page, the page's commands do what they promise, and it ends leaving nothing behind.
func TestDemo(t *testing.T) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Fatalf("the demo's page is for psql: %v; install postgresql-client", err)
	}
	begun := time.Now()
	d := startDemo(t)
	d.until(2*patience, "SELECT * FROM tidemark.lag")
	t.Logf("up after %v", time.Since(begun).Round(time.Millisecond))
	if n := len(d.processes()); n < 9 {
		t.Errorf("%d processes belong to the demo, want 4 PostgreSQL, Kafka, Elasticsearch, Redis, proxy and projector: the test does not see them", n)
	}
	export, commands := pageCommands(t, d.output())
	for what, want := range demoPromises {
		command := commands[what]
		if command == "" {
			t.Errorf("the page has no command for %q", what)
			continue
		}
		cmd := exec.CommandContext(within(t, patience), "/bin/sh", "-ec", export+"\n"+command)
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(psql)+":"+os.Getenv("PATH"), "PSQLRC=/dev/null", "PAGER=")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
		for _, w := range want {
			if !strings.Contains(string(out), w) {
				t.Errorf("%s\nprinted no %q:\n%s", command, w, out)
			}
		}
	}
	if len(commands) != len(demoPromises) {
		t.Errorf("the page has %d commands, the test knows %d", len(commands), len(demoPromises))
	}
	if lines := strings.Count(d.output(), "\n"); lines > 60 {
		t.Errorf("the demo prints %d lines", lines)
	}
	if err := d.cmd.Process.Signal(syscall.SIGINT); err != nil { // Ctrl-C
		t.Fatal(err)
	}
	select {
	case err := <-d.ended:
		if err != nil {
			t.Errorf("the demo ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the demo does not end")
	}
	d.alone()
	if _, err := os.Stat(d.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data is still there: %v", err)
	}
}

// pageCommands finds the line that exports the address, and each command by the words above it.
func pageCommands(t *testing.T, page string) (export string, commands map[string]string) {
	t.Helper()
	commands = map[string]string{}
	what := ""
	for l := range strings.Lines(page) {
		l = strings.TrimSpace(l)
		switch {
		case strings.HasPrefix(l, "export DB="):
			export = l
		case strings.HasPrefix(l, "# "):
			what = l[2:]
		case strings.HasPrefix(l, "psql $DB"):
			commands[what] = l
		}
	}
	if export == "" {
		t.Fatalf("the page does not export DB:\n%s", page)
	}
	return export, commands
}

// TestKilledDemo ends it by SIGKILL while it starts: everything that it had started follows.
func TestKilledDemo(t *testing.T) {
	d := startDemo(t)
	d.until(patience, "proxy  ")
	eventually(t, patience, func(context.Context) error {
		if all := strings.Join(d.processes(), "\n"); strings.Count(all, "tidemark.yaml") < 1 || strings.Count(all, "postgres") < 4 {
			return fmt.Errorf("the test sees too few processes:\n%s", all)
		}
		return nil
	})
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	d.alone()
}
