package loop

import "net"

// Unread gives bytes back to a connection that Wrap returned and Adopt has not taken: the next reads have them first. The
// caller goes on with the connection that it returns, for Adopt too. p stays the caller's.
func Unread(nc net.Conn, p []byte) net.Conn {
	if w, ok := nc.(interface{ unread([]byte) }); ok {
		w.unread(p)
		return nc
	}
	return &unreadConn{nc, append([]byte(nil), p...)}
}

// unreadConn is for engines that adopt any connection.
type unreadConn struct {
	net.Conn
	ahead []byte
}

// CloseWrite is for Finish.
func (c *unreadConn) CloseWrite() error { return closeWrite(c.Conn) }

func (c *unreadConn) Read(p []byte) (int, error) {
	if len(c.ahead) > 0 {
		n := copy(p, c.ahead)
		c.ahead = c.ahead[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}
