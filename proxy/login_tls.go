package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// alpn is the protocol's name in TLS (PG_ALPN_PROTOCOL).
const alpn = "postgresql"

// clientTLS is TLS to clients. A client that offers protocols must offer this one, as in PostgreSQL; one that begins with
// TLS at once must offer some. There are no session tickets: libpq resumes nothing, and a certificate that is
// checked once more cannot have been withdrawn meanwhile.
type clientTLS struct{ config *tls.Config }

// handshakeKey finds, in a handshake's context, where to put the configuration that it uses.
type handshakeKey struct{}

func newClientTLS(base *tls.Config) *clientTLS {
	if base == nil {
		return nil
	}
	static := protocolOf(base)
	outer := static.Clone()
	outer.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		used := static
		if base.GetConfigForClient != nil {
			c, err := base.GetConfigForClient(hello)
			if err != nil {
				return nil, err
			}
			if c != nil {
				used = protocolOf(c)
			}
		}
		if to, ok := hello.Context().Value(handshakeKey{}).(**tls.Config); ok {
			*to = used
		}
		return used, nil
	}
	return &clientTLS{outer}
}

// protocolOf adds what the protocol wants to a configuration, unless it is there.
func protocolOf(c *tls.Config) *tls.Config {
	if len(c.NextProtos) > 0 && c.SessionTicketsDisabled {
		return c
	}
	c = c.Clone()
	c.NextProtos, c.SessionTicketsDisabled, c.GetConfigForClient = []string{alpn}, true, nil
	return c
}

// direct begins TLS with a client that sent the beginning of it already.
func (l *login) direct() error {
	if l.live.tls == nil || isLocal(l.conn) {
		return errDirect
	}
	return l.encrypt(true)
}

// errDirect ends logins that no error message in the clear could reach.
var errDirect = errors.New("the client began with TLS, which is not configured")

// encrypt begins TLS: with what the client sends next, or direct, with what it has sent. The handshake takes more of a processor
// than all else that a client ever asks, so that it runs away from the loop.
func (l *login) encrypt(direct bool) error {
	nc, err := l.conn.Detach()
	if err != nil {
		return err
	}
	if direct {
		nc = loop.Unread(nc, l.buf)
	}
	l.handshake.Store(&nc)
	if err = nc.SetDeadline(l.until); l.late.Load() {
		err = errLate // before it could find nc
	}
	var used *tls.Config
	tc := tls.Server(nc, l.live.tls.config)
	if err == nil {
		l.listen()
		l.task.Await(func() {
			err = tc.HandshakeContext(context.WithValue(context.Background(), handshakeKey{}, &used))
		})
		l.silent.Store(0)
	}
	l.handshake.Store(nil)
	if err != nil {
		return errors.Join(fmt.Errorf("TLS handshake: %w", err), nc.Close())
	}
	if l.conn, err = l.p.engine.Adopt(tc); err != nil {
		return errors.Join(err, nc.Close())
	}
	state := tc.ConnectionState()
	l.tls = &state
	if direct && state.NegotiatedProtocol != alpn {
		return wire.Errorf(wire.ProtocolViolation, "received direct SSL connection request without ALPN protocol negotiation extension")
	}
	if used != nil && len(used.Certificates) == 1 && used.Certificates[0].Leaf != nil {
		// Without a binding PLUS is not on offer, and clients that insist on it say so.
		if l.binding, err = wire.TLSServerEndPoint(used.Certificates[0].Leaf); err != nil {
			l.binding = nil
		}
	}
	return nil
}
