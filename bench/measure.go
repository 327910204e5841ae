package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// point is one row of the report: a mode at a number of clients, with the rounds of every peer.
type point struct {
	mode    string
	clients int
	samples [][]sample
}

// sample is one round of one peer. Latencies are milliseconds; cpu is microseconds of the proxy per transaction.
type sample struct{ tps, p50, p99, cpu float64 }

var (
	tpsLine   = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)
	countLine = regexp.MustCompile(`(?m)^number of transactions actually processed: ([0-9]+)`)
)

// measure runs pgbench once and reads what the proxy's process spent meanwhile.
func (p *peer) measure(ctx context.Context, dir, mode string, clients, seconds int) (s sample, err error) {
	logs, err := os.MkdirTemp(dir, "log-")
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(logs)) }()
	database := "bench"
	if strings.HasPrefix(p.name, "pgbouncer") && mode == "prepared" {
		database = "bench_session"
	}
	dsn := fmt.Sprintf("host=%s port=%d user=bench password=bench dbname=%s", p.host, p.port, database)
	cmd := exec.CommandContext(ctx, "pgbench", "-n", "-S", "-M", mode, "-c", strconv.Itoa(clients), "-j", "1", "-T", strconv.Itoa(seconds),
		"-l", "--sampling-rate=0.1", "--log-prefix="+filepath.Join(logs, "t"), dsn)
	before, err := p.cpuTicks()
	if err != nil {
		return sample{}, err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return sample{}, fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	after, err := p.cpuTicks()
	if err != nil {
		return sample{}, err
	}
	tps, err := number(tpsLine, out)
	if err != nil {
		return sample{}, err
	}
	count, err := number(countLine, out)
	if err != nil {
		return sample{}, err
	}
	latencies, err := readLatencies(logs)
	if err != nil {
		return sample{}, err
	}
	return sample{
		tps: tps, cpu: float64(after-before) * 1e6 / clockTicks / max(1, count),
		p50: percentile(latencies, 0.50), p99: percentile(latencies, 0.99),
	}, nil
}

func number(re *regexp.Regexp, out []byte) (float64, error) {
	m := re.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("pgbench said nothing that matches %s:\n%s", re, out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

// clockTicks is sysconf(_SC_CLK_TCK), 100 on every Linux.
const clockTicks = 100

// cpuTicks is the user and system time that the peer's process has used, all its threads together.
func (p *peer) cpuTicks() (int64, error) {
	if p.cmd == nil {
		return 0, nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return user + system, err
}

// readLatencies reads pgbench's per-transaction logs: the third column is the latency in microseconds.
func readLatencies(dir string) ([]float64, error) {
	files, err := filepath.Glob(filepath.Join(dir, "t*"))
	if err != nil {
		return nil, err
	}
	var ms []float64
	for _, f := range files {
		h, err := os.Open(f)
		if err != nil {
			return nil, err
		}
		sc := bufio.NewScanner(h)
		for sc.Scan() {
			if cols := strings.Fields(sc.Text()); len(cols) > 2 {
				us, err := strconv.ParseFloat(cols[2], 64)
				if err != nil {
					continue // "failed" or "skipped"
				}
				ms = append(ms, us/1000)
			}
		}
		if err := sc.Err(); err != nil {
			return nil, err
		}
		if err := h.Close(); err != nil {
			return nil, err
		}
	}
	slices.Sort(ms)
	return ms, nil
}

func percentile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func median(samples []sample, of func(sample) float64) float64 {
	v := make([]float64, len(samples))
	for i, s := range samples {
		v[i] = of(s)
	}
	slices.Sort(v)
	if len(v) == 0 {
		return 0
	}
	return v[len(v)/2]
}
