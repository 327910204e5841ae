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
	if l.live.tls == nil || isLocal(l.raw) {
		return errDirect
	}
	l.conn = loop.Unread(l.raw, l.buf)
	return l.encrypt(true)
}

// errDirect ends logins that no error message in the clear could reach.
var errDirect = errors.New("the client began with TLS, which is not configured")

// encrypt runs the handshake. Its deadline is the connection's.
func (l *login) encrypt(direct bool) error {
	var used *tls.Config
	tc := tls.Server(l.conn, l.live.tls.config)
	l.listen()
	err := tc.HandshakeContext(context.WithValue(context.Background(), handshakeKey{}, &used))
	l.silent.Store(0)
	if err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	state := tc.ConnectionState()
	l.conn, l.tls = tc, &state
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
