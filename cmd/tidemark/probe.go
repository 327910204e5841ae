package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// probe asks one thing whether it works. `tidemark check --online` and /health are made of probes.
type probe struct {
	name string
	// optional: others do its work when it fails, as with one replica of several. /health stays 200.
	optional bool
	// run returns what is worth knowing, in a few words. Its error may wrap an advice.
	run func(ctx context.Context) (detail string, err error)
}

// finding is what a probe found.
type finding struct {
	probe
	detail string
	err    error
	took   time.Duration
}

// advice is an error with what to do about it.
type advice struct {
	err error
	do  string // one line: a command, or a setting
}

func (a advice) Error() string { return a.err.Error() }
func (a advice) Unwrap() error { return a.err }

// runProbes runs all probes at once, each for at most the timeout, and returns their findings in the same order.
// There are as many as the configuration has servers, so their number is bounded.
func runProbes(ctx context.Context, probes []probe, timeout time.Duration) []finding {
	findings := make([]finding, len(probes))
	var wg sync.WaitGroup
	for i, p := range probes {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			start := time.Now()
			detail, err := p.run(ctx)
			if err != nil && ctx.Err() != nil {
				err = fmt.Errorf("no answer within %v: %w", timeout, err)
			}
			findings[i] = finding{p, detail, err, time.Since(start)}
		})
	}
	wg.Wait()
	return findings
}
