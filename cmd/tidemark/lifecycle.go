package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tidemarkdb/tidemark/internal/config"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/proxy"
)

// What a running proxy is told, and by whom:
//
//	                      signal              admin database   what happens
//	reload                SIGHUP              RELOAD           the file is read again: reload
//	hand over             SIGUSR2             -                a new process takes the sockets: handover.go
//	drain                 SIGTERM, SIGINT     DRAIN            no new clients, transactions end, at most drain_timeout
//	stop now              a second of these   SHUTDOWN         what still runs is cut off, clients are told; a handover is none of these
//	die                   a third             -                the system ends the process

// errDrain is why a process stops that an administrator has asked to.
var errDrain = errors.New("an administrator asked for it")

// control follows signals until ctx ends for good: not when the drain begins, for a second signal cuts that short.
func (p *proxyProcess) control(ctx context.Context, drained <-chan struct{}) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, append([]os.Signal{os.Interrupt, syscall.SIGTERM}, controlSignals...)...)
	defer signal.Stop(signals)
	asked := 0
	for {
		select {
		case <-drained:
			return
		case s := <-signals:
			switch {
			case s == hangupSignal:
				if err := p.reload(); err != nil {
					p.log.Error("the configuration was not reloaded; nothing has changed", "error", err)
				}
			case s == handoverSignal:
				if err := p.handOver(ctx); err != nil {
					says := "no new process has taken over; this one goes on"
					if ctx.Err() != nil {
						says = "no new process has taken over; this one ends, as it was told"
					}
					p.log.Error(says, "error", err)
				}
			default: // the first one has ended ctx: see main
				if asked++; asked == 1 && errors.Is(context.Cause(ctx), proxy.ErrHandedOver) {
					p.log.Info("the drain goes on", "why", "a first signal, behind a handover") // it is for both: systemd stops the unit
				} else if asked > 1 || ctx.Err() != nil && context.Cause(ctx) != nil && !errors.Is(context.Cause(ctx), context.Canceled) {
					p.log.Warn("stopping now", "why", "another signal")
					p.hurry()
					signal.Stop(signals)
				}
			}
		}
	}
}

// reload reads the configuration again and puts all of it into force, or nothing.
func (p *proxyProcess) reload() (err error) {
	p.reloading.Lock()
	defer p.reloading.Unlock()
	p.notify.reloading()
	defer func() {
		status := "the configuration was reloaded"
		if err != nil {
			status = "the configuration was not reloaded: see the log"
		}
		p.notify.reloaded(status)
	}()
	next, changes, err := p.current.Load().Reload()
	if err != nil {
		return err
	}
	pc, err := next.Proxy()
	if err != nil {
		return err
	}
	var trace, cancel func()
	if pc.Tracing, trace, cancel, err = p.tracing.prepare(next); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			cancel()
		}
	}()
	apply, err := p.proxy.Prepare(pc)
	if err != nil {
		return fmt.Errorf("%s: %w", next.File, err)
	}
	bc, err := next.Backend()
	if err != nil {
		return err
	}
	applyPools, err := p.backend.Prepare(bc)
	if err != nil {
		return fmt.Errorf("%s: %w", next.File, err)
	}
	applyPools() // from here on nothing can fail; pools come first, for sessions that begin meanwhile
	apply()
	trace()
	setLogLevel(next.Log)
	p.current.Store(next)
	if p.proxy.Starting() == "" { // else it is about to be read
		p.proxy.ReloadCatalog()
	}
	keys := make([]string, len(changes))
	for i, e := range changes {
		keys[i] = e.Key
	}
	p.log.Info("the configuration was reloaded", "changed", keys)
	return nil
}

// admin is what the process adds to the admin database.
func (p *proxyProcess) admin() proxy.Admin {
	return proxy.Admin{
		Tables: append(p.served(), configTable(p.current.Load)),
		Reload: func(context.Context) error { return p.reload() },
		Stop: func(now bool) {
			p.stop(errDrain)
			if now {
				p.hurry()
			}
		},
	}
}

// configTable is the configuration in force.
func configTable(current func() *config.Config) proxy.Table {
	return proxy.Table{
		Name: "config", Doc: "The configuration in force, as docs/config.md describes it.",
		Cols: []proxy.TableColumn{
			proxy.Text("key", "its path in the file"), proxy.Text("value", "as it was written; [secret] for secrets"), proxy.Int("line", "where it stands in the file; NULL for a default"),
			proxy.Bool("reload", "whether RELOAD takes a new value; others need a restart"), proxy.Text("file", "the file"),
		},
		Rows: func() (rows [][][]byte) {
			c := current()
			for _, e := range c.Entries() {
				var line []byte
				if e.Line > 0 {
					line = proxy.IntValue(e.Line)
				}
				rows = append(rows, [][]byte{proxy.TextValue(e.Key), proxy.TextValue(e.Value), line, proxy.BoolValue(e.Live), proxy.TextValue(c.File)})
			}
			return rows
		},
	}
}

// loopsTurn says whether a task gets to run before ctx ends.
func loopsTurn(ctx context.Context, engine loop.Engine) bool {
	ran := make(chan struct{})
	engine.Go(func(*loop.Task) { close(ran) })
	select {
	case <-ran:
		return true
	case <-ctx.Done():
		return false
	}
}

// drainTimeout is how long clients have to leave, by the configuration of now.
func (p *proxyProcess) drainTimeout() time.Duration { return p.current.Load().DrainTimeout }
