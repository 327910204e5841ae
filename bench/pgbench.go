package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// load is one run of pgbench.
type load struct {
	clients, threads int // threads 0: one
	seconds          int // measured; one more comes first
	mode             string
	sampling         float64 // part of the transactions whose latency is logged
	tls              bool
	args             []string
}

// outcome is what a run gave. Latencies are milliseconds; user and system are microseconds of the proxy per transaction.
type outcome struct {
	tps, p50, p99, user, system float64
}

var (
	progressLine = regexp.MustCompile(`^progress: ([0-9.]+) s, ([0-9.]+) tps`)
	countLine    = regexp.MustCompile(`(?m)^number of transactions actually processed: ([0-9]+)`)
)

// sample runs the load for latencyColumns.
func (l load) sample(ctx context.Context, p *peer) (sample, error) {
	o, err := l.run(ctx, p)
	return sample{o.tps, o.p50, o.p99, o.user, o.system, o.user + o.system}, err
}

// run measures from pgbench's first line of progress, a second after all clients are connected, until its end: logins, which
// cost a hundred times what a transaction does, would otherwise drown the figures of many clients. The time that pgbench is
// given counts their logins, too, so it gets plenty, and then the SIGALRM that it would have sent to itself.
func (l load) run(ctx context.Context, p *peer) (o outcome, err error) {
	logs, err := os.MkdirTemp(p.bench.dir, "log-")
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(logs)) }()
	args := []string{
		"-n", "-M", l.mode, "-c", strconv.Itoa(l.clients), "-j", strconv.Itoa(max(1, l.threads)), "-T", "3600", "-P", "1",
		"-l", "--sampling-rate=" + strconv.FormatFloat(l.sampling, 'f', -1, 64), "--log-prefix=" + filepath.Join(logs, "t"),
	}
	cmd := command(ctx, "pgbench", append(append(args, l.args...), p.dsn(l.mode == "prepared", l.tls))...)
	var report, complaints bytes.Buffer
	cmd.Stdout = &report
	lines, err := cmd.StderrPipe()
	if err != nil {
		return o, err
	}
	if err := start(cmd); err != nil {
		return o, err
	}
	var from time.Time
	var before usage
	var warm float64 // transactions before from
	var usageErr error
	for sc := bufio.NewScanner(lines); sc.Scan(); {
		m := progressLine.FindStringSubmatch(sc.Text())
		switch {
		case m == nil:
			complaints.WriteString(sc.Text() + "\n")
		case from.IsZero():
			from = time.Now()
			before, usageErr = p.usage()
			end := time.AfterFunc(time.Duration(l.seconds)*time.Second, func() { _ = cmd.Process.Signal(syscall.SIGALRM) })
			defer end.Stop()
			warm = parse64(m[1]) * parse64(m[2])
		}
	}
	to := time.Now()
	after, err := p.usage()
	if err := errors.Join(cmd.Wait(), usageErr, err); err != nil {
		return o, fmt.Errorf("pgbench: %w\n%s%s", err, tail(complaints.Bytes()), tail(report.Bytes()))
	}
	if from.IsZero() {
		return o, fmt.Errorf("pgbench reported no progress\n%s", tail(complaints.Bytes()))
	}
	count, err := number(countLine, report.Bytes())
	if err != nil {
		return o, err
	}
	latencies, err := readLatencies(logs, from)
	if err != nil {
		return o, err
	}
	count = max(1, count-warm)
	return outcome{
		tps: count / to.Sub(from).Seconds(),
		p50: percentile(latencies, 0.50), p99: percentile(latencies, 0.99),
		user: (after.user - before.user).Seconds() * 1e6 / count, system: (after.system - before.system).Seconds() * 1e6 / count,
	}, nil
}

// tail is the end of what a program said: the rest repeats it for every client.
func tail(b []byte) []byte { return b[max(0, len(b)-600):] }

func number(re *regexp.Regexp, out []byte) (float64, error) {
	m := re.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("pgbench said nothing that matches %s:\n%s", re, tail(out))
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

// parse64 is for what a regular expression has found to be a number.
func parse64(s string) float64 {
	f, _ := strconv.ParseFloat(s, 64)
	return f
}

// readLatencies reads pgbench's per-transaction logs: the third column is the latency in microseconds, the fifth and sixth
// are the seconds and microseconds of the end. What ended before from is left out.
func readLatencies(dir string, from time.Time) ([]float64, error) {
	files, err := filepath.Glob(filepath.Join(dir, "t*"))
	if err != nil {
		return nil, err
	}
	var ms []float64
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			cols := strings.Fields(line)
			if len(cols) < 6 {
				continue
			}
			us, err := strconv.ParseFloat(cols[2], 64)
			if err != nil {
				continue // "failed" or "skipped"
			}
			if parse64(cols[4])+parse64(cols[5])/1e6 >= float64(from.UnixMicro())/1e6 {
				ms = append(ms, us/1000)
			}
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
