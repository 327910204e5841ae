//go:build !unix

package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
)

// unixSocket is the Unix socket that a proxy has of its own.
type unixSocket struct {
	path  string // empty: there is none
	mode  fs.FileMode
	group string
}

func lockOf(socket string) string { return socket + ".lock" }

func (unixSocket) listen(context.Context) (net.Listener, *os.File, error) {
	return nil, nil, errors.New("there are no Unix sockets on this system")
}
