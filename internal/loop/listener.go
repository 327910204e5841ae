package loop

import (
	"errors"
	"net"
	"os"
)

// Listener accepts connections for an engine, see Engine.Listen.
type Listener struct {
	ln     net.Listener
	accept func() (*Conn, error)
	same   *os.File // that accept uses; nil: it uses ln
}

// Accept waits for a connection, which is adopted. Behind Close it fails with an error that is net.ErrClosed.
func (l *Listener) Accept() (*Conn, error) { return l.accept() }

// Addr is where it listens.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Close closes the listener that Listen was given.
func (l *Listener) Close() error {
	err := l.ln.Close()
	if l.same != nil {
		err = errors.Join(err, l.same.Close())
	}
	return err
}
