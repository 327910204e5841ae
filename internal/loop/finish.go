package loop

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// To close a socket in which unread data lies, or to which some comes later, resets the connection, and a reset can overtake what was
// sent before it, or make the peer's system throw that away. So who has been sent last words is told the end of the stream first, and
// what it still sends is read and thrown away until it closes too, as HTTP servers do (RFC 9112, section 9.6).
const finishMost = 4096 // connections at once, in the whole process; others are just closed

var (
	finishTime = 2 * time.Second // how long a peer may take to close its side; a test has more patience
	finishing  atomic.Int64
)

// mayFinish takes one of the places, which finished gives back.
func mayFinish() bool {
	if finishing.Add(1) <= finishMost {
		return true
	}
	finishing.Add(-1)
	return false
}

func finished() { finishing.Add(-1) }

// Finish is Conn.Finish for a connection that no engine has adopted. It blocks until it is done.
func Finish(nc net.Conn) error {
	if mayFinish() {
		defer finished()
		if closeWrite(nc) == nil && nc.SetReadDeadline(time.Now().Add(finishTime)) == nil {
			_, _ = io.Copy(io.Discard, under(nc)) // until the peer has closed, or has taken too long
		}
	}
	return nc.Close()
}

// closeWrite sends the end of the stream, also that of TLS.
func closeWrite(nc net.Conn) error {
	if tc, ok := nc.(*tls.Conn); ok {
		if err := tc.CloseWrite(); err != nil {
			return err
		}
	}
	if half, ok := under(nc).(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// under is what TLS runs over, else nc itself.
func under(nc net.Conn) net.Conn {
	if tc, ok := nc.(*tls.Conn); ok {
		return tc.NetConn()
	}
	return nc
}
