package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// enterByKeys logs in by SCRAM keys: the way in that pgconn does not have. Addresses and TLS are those that pgconn made of
// the configuration: one attempt after the other, of which all but the first are pgconn's fallbacks (sslmode prefer and
// allow). The connection is what the engine adopts.
func (l *login) enterByKeys(ctx context.Context, id *Identity) (*pgconn.HijackedConn, error) {
	ways := []*pgconn.FallbackConfig{{Host: l.pooled.Host, Port: l.pooled.Port, TLSConfig: l.pooled.TLSConfig}}
	ways = append(ways, l.pooled.Fallbacks...)
	var errs []error
	for _, way := range ways {
		hc, err := l.enterBy(ctx, way, id)
		if err == nil {
			return hc, nil
		}
		var w *wire.Error
		if errors.As(err, &w) && w.Code == wire.InvalidPassword && w.Hint == "" {
			w.Hint = "The server must store the same SCRAM-SHA-256 verifier as the proxy, with the same salt and iterations: the same password is not enough. If the password was set anew meanwhile, connect again."
		}
		if errors.As(err, &w) && (way.TLSConfig != nil || w.Code != wire.InvalidAuthorizationSpecification) {
			return nil, err // the server has answered; only "no pg_hba.conf entry ... no encryption" may be otherwise elsewhere
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (l *login) enterBy(ctx context.Context, way *pgconn.FallbackConfig, id *Identity) (*pgconn.HijackedConn, error) {
	network, address := "tcp", net.JoinHostPort(way.Host, strconv.Itoa(int(way.Port)))
	if strings.HasPrefix(way.Host, "/") {
		network, address = "unix", way.Host+"/.s.PGSQL."+strconv.Itoa(int(way.Port))
	}
	nc, err := l.pooled.DialFunc(ctx, network, address)
	if err != nil {
		return nil, err
	}
	// The context's end breaks what blocks. AfterFunc's stop says whether it has run: then the deadline is spoiled.
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	hc, err := l.shake(ctx, nc, way.TLSConfig, id)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		return hc, nil
	}
	_ = nc.Close() // err says why it is not used
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, err
}

// shake does TLS and the login on a fresh connection.
func (l *login) shake(ctx context.Context, nc net.Conn, secure *tls.Config, id *Identity) (*pgconn.HijackedConn, error) {
	if secure != nil {
		if _, err := nc.Write(wire.AppendSSLRequest(nil)); err != nil {
			return nil, err
		}
		answer := make([]byte, 1)
		if _, err := io.ReadFull(nc, answer); err != nil {
			return nil, err
		}
		if answer[0] != 'S' {
			return nil, errors.New("the server does not speak TLS")
		}
		tc := tls.Client(nc, secure)
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		nc = tc
	}
	g := &greeting{nc: nc}
	hc := &pgconn.HijackedConn{Conn: nc, TLSConfig: secure, ParameterStatuses: map[string]string{}, Config: l.pooled}
	params := []wire.Parameter{{Name: "user", Value: id.User}, {Name: "database", Value: l.database}}
	for name, value := range l.pooled.RuntimeParams {
		params = append(params, wire.Parameter{Name: name, Value: value})
	}
	if _, err := nc.Write(wire.AppendStartupMessage(nil, wire.Protocol30, params)); err != nil {
		return nil, err
	}
	if err := g.authenticate(id); err != nil {
		return nil, err
	}
	return hc, g.parameters(hc)
}

// greeting is what a server says between the startup message and its first ReadyForQuery. It reads no byte beyond.
type greeting struct {
	nc  net.Conn
	buf []byte
}

// greetingLimit bounds, in bytes, one message of a server that logs us in.
const greetingLimit = 64 << 10

// next is the next message but notices; the body is valid until the next call. An ErrorResponse is the error.
func (g *greeting) next() (typ byte, body []byte, err error) {
	for {
		g.buf = slices.Grow(g.buf[:0], wire.HeaderLen)[:wire.HeaderLen]
		if _, err := io.ReadFull(g.nc, g.buf); err != nil {
			return 0, nil, err
		}
		typ, size, err := wire.Header(g.buf, wire.Backend)
		if err != nil {
			return 0, nil, errors.New(err.Error()) // it is no answer of the server's
		}
		if size > greetingLimit {
			return 0, nil, fmt.Errorf("message of %d bytes during the login", size)
		}
		g.buf = slices.Grow(g.buf, size-wire.HeaderLen)[:size]
		body = g.buf[wire.HeaderLen:]
		if _, err := io.ReadFull(g.nc, body); err != nil {
			return 0, nil, err
		}
		switch typ {
		case wire.MsgNoticeResponse:
		case wire.MsgErrorResponse:
			e, err := wire.DecodeError(body)
			if err != nil {
				return 0, nil, err
			}
			return 0, nil, e
		default:
			return typ, body, nil
		}
	}
}

// authenticate answers the server's demand by SCRAM, and requires that the server proves itself too: one that lets
// everybody in knows nothing of the user.
//
//	AuthenticationSASL, …SASLContinue, …SASLFinal, …Ok
func (g *greeting) authenticate(id *Identity) error {
	var scram *wire.SCRAMClient
	for {
		typ, body, err := g.next()
		if err != nil {
			return err
		}
		if typ != wire.MsgAuthentication {
			return fmt.Errorf("message of type %q instead of an authentication request", typ)
		}
		code, data, err := wire.DecodeAuthentication(body)
		if err != nil {
			return err
		}
		var out []byte
		switch {
		case code == wire.AuthSASL && scram == nil:
			if scram, err = g.scram(id, strings.Split(string(data), "\x00")); err != nil {
				return err
			}
			out = wire.AppendSASLInitial(nil, scram.Mechanism(), scram.First())
		case code == wire.AuthSASLContinue && scram != nil:
			final, err := scram.Final(data)
			if err != nil {
				return err
			}
			out = wire.AppendSASLResponse(nil, final)
		case code == wire.AuthSASLFinal && scram != nil:
			if err := scram.Verify(data); err != nil {
				return err
			}
			continue
		case code == wire.AuthOK && scram != nil && scram.Done():
			return nil
		case code == wire.AuthOK && scram == nil:
			return nil // pg_hba.conf trusts us, or knows our certificate
		default:
			return wire.Errorf(wire.InvalidAuthorizationSpecification, "the server asks user %q for something else than SCRAM-SHA-256", id.User).
				WithHint("The client's password is not known here, only its SCRAM keys: store the user's password as a SCRAM-SHA-256 verifier on the server, and have pg_hba.conf ask for scram-sha-256.")
		}
		if _, err := g.nc.Write(out); err != nil {
			return err
		}
	}
}

// scram begins an exchange by one of the mechanisms that the server offers, bound to the TLS connection where it can be.
func (g *greeting) scram(id *Identity, offered []string) (*wire.SCRAMClient, error) {
	c, err := wire.NewSCRAMClient(id.User, "", id.Keys)
	if err != nil {
		return nil, err
	}
	if tc, ok := g.nc.(*tls.Conn); ok {
		if data, err := wire.TLSServerEndPoint(tc.ConnectionState().PeerCertificates[0]); err == nil {
			c.BindChannel(data, slices.Contains(offered, wire.MechanismSCRAMPlus))
		}
	}
	if !slices.Contains(offered, c.Mechanism()) {
		return nil, fmt.Errorf("the server offers %q, none of which is known", offered)
	}
	return c, nil
}

// parameters takes what comes behind AuthenticationOk, up to ReadyForQuery.
func (g *greeting) parameters(hc *pgconn.HijackedConn) error {
	for {
		typ, body, err := g.next()
		if err != nil {
			return err
		}
		switch typ {
		case wire.MsgParameterStatus:
			name, value, err := wire.DecodeParameterStatus(body)
			if err != nil {
				return err
			}
			hc.ParameterStatuses[string(name)] = string(value)
		case wire.MsgBackendKeyData:
			pid, key, err := wire.DecodeBackendKeyData(body)
			if err != nil {
				return err
			}
			hc.PID, hc.SecretKey = pid, slices.Clone(key)
		case wire.MsgReadyForQuery:
			hc.TxStatus, err = wire.DecodeReadyForQuery(body)
			return err
		default:
			return fmt.Errorf("message of type %q during the login", typ)
		}
	}
}
