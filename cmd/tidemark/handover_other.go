//go:build !unix

package main

import (
	"context"
	"errors"
	"os"
	"syscall"
)

// These signals are not sent here.
const (
	hangupSignal   = syscall.Signal(-1)
	handoverSignal = syscall.Signal(-2)
)

var controlSignals []os.Signal

func (p *proxyProcess) handOver(context.Context) error {
	return errors.New("sockets cannot be handed over on this system")
}

func (s *sockets) serving() error { return nil }

func openInherited(fd uintptr, name string) *os.File { return os.NewFile(fd, name) }
