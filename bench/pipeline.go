package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// pipeline is a request, as it is sent many times over without waiting for answers, and its answer. What it asks for is answered
// by bench/canned.
type pipeline struct {
	name         string
	prepared     bool
	begin, begun string // sent once ahead, and its answer
	ask, answer  string
}

// cannedStatement is what bench/canned answers itself.
const cannedStatement = "SELECT 1 AS canned"

const (
	cannedDescription = "T\x00\x00\x00\x1f\x00\x01canned\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x17\x00\x04\xff\xff\xff\xff\x00\x00"
	cannedRow         = "D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x011C\x00\x00\x00\x0dSELECT 1\x00"
	cannedReady       = "Z\x00\x00\x00\x05I"
)

// pipelines are the modes in which such a statement is sent.
func pipelines() []pipeline {
	all := func(messages ...[]byte) string { return string(bytes.Join(messages, nil)) }
	sync := message('S', "")
	return []pipeline{
		{
			name: "simple",
			ask:  all(message('Q', cannedStatement+"\x00")), answer: cannedDescription + cannedRow + cannedReady,
		},
		{
			name: "prepared", prepared: true,
			begin: all(message('P', "one\x00"+cannedStatement+"\x00\x00\x00"), sync), begun: "1\x00\x00\x00\x04" + cannedReady,
			ask:    all(message('B', "\x00one\x00\x00\x00\x00\x00\x00\x00"), message('E', "\x00\x00\x00\x00\x00"), sync),
			answer: "2\x00\x00\x00\x04" + cannedRow + cannedReady,
		},
	}
}

// pipelineDepth is how many requests of a client are under way: half of them leave in one write.
const pipelineDepth = 1000

// run keeps a pipeline full on each of so many connections to a peer, for a second and then while measure does its work, which
// is given the number of answers so far.
func (pl pipeline) run(ctx context.Context, p *peer, clients int, measure func(answered func() int64) error) error {
	g, gctx := errgroup.WithContext(ctx)
	var answered atomic.Int64
	var over atomic.Bool
	var conns []net.Conn
	for range clients {
		pg, err := pgconn.Connect(gctx, p.dsn(pl.prepared, false))
		if err != nil {
			over.Store(true)
			closeAll(conns)
			return err
		}
		h, err := pg.Hijack()
		if err != nil {
			return err
		}
		conns = append(conns, h.Conn)
		g.Go(func() error {
			err := pl.keepFull(h.Conn, &answered)
			if over.Load() {
				return nil
			}
			return err
		})
	}
	g.Go(func() error {
		defer closeAll(conns)
		defer over.Store(true)
		select {
		case <-time.After(time.Second):
		case <-gctx.Done():
			return gctx.Err()
		}
		return measure(answered.Load)
	})
	return g.Wait()
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		_ = c.Close() // nobody waits for its farewell
	}
}

// keepFull sends the request until the connection is closed, and compares what comes with what should, byte by byte.
func (pl pipeline) keepFull(c net.Conn, answered *atomic.Int64) error {
	in := make([]byte, bulkBuffer)
	if pl.begin != "" {
		if _, err := c.Write([]byte(pl.begin)); err != nil {
			return err
		}
		for n := 0; n < len(pl.begun); {
			k, err := c.Read(in[:len(pl.begun)-n])
			if err != nil {
				return err
			}
			if got, want := string(in[:k]), pl.begun[n:n+k]; got != want {
				return fmt.Errorf("answer %q, want %q", got, want)
			}
			n += k
		}
	}
	const half = pipelineDepth / 2
	ask := []byte(strings.Repeat(pl.ask, half))
	want := []byte(strings.Repeat(pl.answer, len(in)/len(pl.answer)+2))
	for sent, got, told := 0, 0, 0; ; { // requests, bytes, answers
		for ; sent-got/len(pl.answer) <= half; sent += half {
			if _, err := c.Write(ask); err != nil {
				return err
			}
		}
		n, err := c.Read(in)
		if err != nil {
			return err
		}
		if from := got % len(pl.answer); !bytes.Equal(in[:n], want[from:from+n]) {
			return fmt.Errorf("answers %.200q, want %.200q", in[:n], want[from:from+n])
		}
		got += n
		answered.Add(int64(got/len(pl.answer) - told))
		told = got / len(pl.answer)
	}
}

// ownCPU is what this process has used.
func ownCPU() (time.Duration, error) {
	var r syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()), err
}
