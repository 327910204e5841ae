package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// scenario is one table of the report: points (rows, one per peer) and what is measured of each (columns).
type scenario struct {
	name     string // for -only
	title    string
	note     string   // what is measured and how
	keys     []string // names of the points' labels; the first one groups the bars of the chart
	columns  []column
	cost     string // the column that is compared with PgBouncer's; less is better
	sharding string // tables of tidemark-sharded, in YAML; empty leaves that peer out
	poolers  bool   // direct has no part in it
	fresh    bool   // each measurement begins with a new process
	canned   bool   // the first server has bench/canned before it
	loops    []int  // Tidemark takes part once for each of these numbers of loops
	rounds   int    // 0: as many as asked for
	points   []point
}

// column is one figure of a sample, at its place.
type column struct {
	name   string
	digits int  // behind the decimal point
	proxy  bool // a figure of the proxy's process, which direct has not
}

// point is one row for each peer.
type point struct {
	labels  []string
	skip    func(*peer) bool // may be nil
	measure func(context.Context, *peer) (sample, error)
}

// sample is one round of one peer: a figure for each column.
type sample []float64

// result holds the rounds of a scenario.
type result struct {
	*scenario
	peers    []*peer
	samples  [][][]sample // by point, peer, round; no rounds where the peer was skipped or failed
	failures []string
}

// scenarios in the order of the report.
func scenarios(b *bench) []*scenario {
	return []*scenario{selects(b), tpcb(b), connects(b), bulk(b), idle(b), overload(b), cores(b)}
}

func scenarioNames() (names []string) {
	for _, sc := range scenarios(&bench{}) {
		names = append(names, sc.name)
	}
	return names
}

// sampleTimeout ends a measurement that hangs; it is far beyond what the slowest takes.
const sampleTimeout = 10 * time.Minute

// measure runs a scenario. A peer that fails at a point is out of that point, and the report says why; what is returned as an
// error ends the run.
func (b *bench) measure(ctx context.Context, sc *scenario) (r *result, err error) {
	r = &result{scenario: sc}
	defer func() {
		for _, p := range r.peers {
			err = errors.Join(err, p.stop())
		}
	}()
	if sc.canned {
		if err := b.startCanned(ctx); err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, b.canned.stop()) }()
	}
	if r.peers, err = b.startPeers(ctx, sc); err != nil {
		return r, err
	}
	if sc.rounds == 0 {
		sc.rounds = b.rounds
	}
	for _, pt := range sc.points {
		samples := make([][]sample, len(r.peers))
		failed := make([]bool, len(r.peers))
		for round := range sc.rounds {
			for i, p := range r.peers {
				if failed[i] || pt.skip != nil && pt.skip(p) {
					continue
				}
				s, err := b.sample(ctx, sc, pt, p)
				if ctx.Err() != nil {
					return r, ctx.Err()
				}
				where := fmt.Sprintf("%s, %s", sc.name, strings.Join(pt.labels, ", "))
				if err != nil {
					failed[i], samples[i] = true, nil
					say("%s: %s failed: %v", where, p.name, err)
					r.failures = append(r.failures, fmt.Sprintf("%s: %s: %v", strings.Join(pt.labels, ", "), p.name, err))
					continue
				}
				samples[i] = append(samples[i], s)
				say("%s, round %d of %d: %-16s %s", where, round+1, sc.rounds, p.name, sc.line(p, s))
			}
		}
		r.samples = append(r.samples, samples)
	}
	return r, nil
}

func (b *bench) sample(ctx context.Context, sc *scenario, pt point, p *peer) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	if sc.fresh {
		if err := errors.Join(p.stop(), p.start(ctx)); err != nil {
			return nil, err
		}
	}
	return pt.measure(ctx, p)
}

// line is a sample for people who watch.
func (sc *scenario) line(p *peer, s sample) string {
	var parts []string
	for i, c := range sc.columns {
		if !c.proxy || p.proxy() {
			parts = append(parts, fmt.Sprintf("%.*f %s", c.digits, s[i], c.name))
		}
	}
	return strings.Join(parts, ", ")
}
