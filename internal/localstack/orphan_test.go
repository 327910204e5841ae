package localstack

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain lets TestNoOrphans run this binary as the process that gets killed.
func TestMain(m *testing.M) {
	if os.Getenv("LOCALSTACK_TEST_VICTIM") != "" {
		victim()
		return
	}
	os.Exit(m.Run())
}

// victim starts a stack, prints its folder and every process of it, and waits to be killed.
func victim() {
	ctx := context.Background()
	s, err := Start(ctx, Spec{Shards: []PostgresSpec{{Name: "a", Replicas: 1}}, Kafka: true, Redis: true, Elasticsearch: true})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := s.Postgres[0].Replicas[0].Pause(); err != nil { // a paused service must go too
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(s.Dir)
	for _, svc := range s.Services() {
		for _, pid := range svc.tree() {
			fmt.Println(pid)
		}
	}
	fmt.Println("end")
	time.Sleep(time.Hour)
}

// TestNoOrphans kills a process with a running stack by SIGKILL: every service goes with it, and the next stack removes its folder.
func TestNoOrphans(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(testContext(t), self)
	cmd.Env = append(os.Environ(), "LOCALSTACK_TEST_VICTIM=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for scan := bufio.NewScanner(out); scan.Scan() && scan.Text() != "end"; {
		lines = append(lines, scan.Text())
	}
	if len(lines) < 20 { // two postmasters with their children, three others
		t.Fatalf("the victim printed %q", lines)
	}
	dir := lines[0]
	var pids []int
	for _, line := range lines[1:] {
		pid, err := strconv.Atoi(line)
		if err != nil {
			t.Fatal(err)
		}
		if !alive(pid) {
			// A worker such as autovacuum's may have ended by itself; the services' own processes may not.
			t.Logf("process %d ended early", pid)
			continue
		}
		pids = append(pids, pid)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it says "signal: killed"
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var left []string
		for _, pid := range pids {
			if alive(pid) {
				name, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline")) // it may go just now
				left = append(left, fmt.Sprintf("%d %.60s", pid, strings.ReplaceAll(string(name), "\x00", " ")))
			}
		}
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("orphans: %q", left)
		}
	}
	startStack(t, Spec{Redis: true}) // unless one of another process came first
	if exists(dir) {
		t.Errorf("the next stack left %s of the killed one", dir)
	}
}
