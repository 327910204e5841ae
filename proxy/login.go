package proxy

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// login is one client on its way in. It runs in an ordinary goroutine over a blocking connection; what it reads ahead
// of the session is nothing, because a client waits for ReadyForQuery before it sends its first request.
type login struct {
	p    *Proxy
	conn net.Conn // from Wrap; a *tls.Conn over it after an SSLRequest
	buf  []byte
	full bool // there are as many clients as may be

	admin bool // it comes for the admin database

	user    string
	params  []wire.Parameter // the settings that the client asked for
	version uint32
}

// errDone ends a login that was answered and is over: a cancel request, or a client that left.
var errDone = errors.New("login is over")

// run takes the client to where a session can begin. An error that it returns has been told to the client.
func (l *login) run() error {
	if err := l.conn.SetDeadline(time.Now().Add(l.p.cfg().LoginTimeout)); err != nil {
		return err
	}
	start, err := l.startup()
	if err != nil {
		return l.refuse(err)
	}
	if err := l.accept(start); err != nil {
		return l.refuse(err)
	}
	if err := l.authenticate(); err != nil {
		return l.refuse(err)
	}
	return nil
}

// refuse tells the client why, if it should hear, and passes the error on.
func (l *login) refuse(err error) error {
	if errors.Is(err, errDone) {
		return err
	}
	var e *wire.Error
	if !errors.As(err, &e) {
		return err // the connection failed: nobody listens
	}
	msg := wire.AppendErrorResponse(nil, e.Fatal())
	if _, werr := l.conn.Write(msg); werr != nil {
		return errors.Join(err, werr)
	}
	return err
}

// startup answers SSLRequest and GSSENCRequest, each at most once, until the startup message or a cancel request comes.
func (l *login) startup() (wire.Startup, error) {
	askedTLS, askedGSS := false, false
	for {
		s, err := l.packet()
		if err != nil {
			return s, err
		}
		switch s.Kind {
		case wire.SSLRequest:
			if _, on := l.conn.(*tls.Conn); on || askedTLS {
				return s, wire.Errorf(wire.ProtocolViolation, "unexpected SSL request")
			}
			askedTLS = true
			if l.p.cfg().TLS == nil {
				if _, err := l.conn.Write([]byte{'N'}); err != nil {
					return s, err
				}
				continue
			}
			if _, err := l.conn.Write([]byte{'S'}); err != nil {
				return s, err
			}
			tc := tls.Server(l.conn, l.p.cfg().TLS)
			if err := tc.Handshake(); err != nil {
				return s, fmt.Errorf("TLS handshake: %w", err)
			}
			l.conn = tc
		case wire.GSSENCRequest:
			if askedGSS {
				return s, wire.Errorf(wire.ProtocolViolation, "unexpected GSSAPI encryption request")
			}
			askedGSS = true
			if _, err := l.conn.Write([]byte{'N'}); err != nil {
				return s, err
			}
		case wire.CancelRequest:
			l.p.cancel(s.PID, s.Key)
			return s, errDone
		case wire.StartupMessage:
			return s, nil
		}
	}
}

// packet reads one packet of the startup family, and not a byte more: what follows an SSLRequest belongs to TLS.
func (l *login) packet() (wire.Startup, error) {
	l.buf = l.buf[:0]
	for {
		s, n, need, err := wire.NextStartup(l.buf)
		if err != nil || n > 0 {
			return s, err
		}
		have := len(l.buf)
		l.buf = append(l.buf, make([]byte, need-have)...)
		if err := readFull(l.conn, l.buf[have:]); err != nil {
			if have == 0 {
				return s, errDone // a port check, or a client that changed its mind
			}
			return s, err
		}
	}
}

// accept checks who comes and what for.
func (l *login) accept(s wire.Startup) error {
	_, encrypted := l.conn.(*tls.Conn)
	if l.p.cfg().RequireTLS && !encrypted {
		return wire.Errorf(wire.InvalidAuthorizationSpecification, "connection requires TLS").WithHint("Connect with sslmode=require.")
	}
	l.user, l.version = s.User(), s.Version
	for _, p := range s.Params {
		switch {
		case p.Name == "user" || p.Name == "database" || strings.HasPrefix(p.Name, "_pq_."):
		case p.Name == "replication":
			if on := strings.ToLower(p.Value); on != "false" && on != "off" && on != "no" && on != "0" {
				return wire.Errorf(wire.FeatureNotSupported, "replication connections are not supported").
					WithHint("Connect to the shard's own PostgreSQL server.")
			}
		case p.Name == "options":
			opts, err := parseOptions(p.Value)
			if err != nil {
				return err
			}
			l.params = append(l.params, opts...)
		default:
			l.params = append(l.params, p)
		}
	}
	if minor, unknown, needed := s.Negotiate(); needed {
		l.version = wire.Protocol30 | uint32(minor)
		if _, err := l.conn.Write(wire.AppendNegotiateProtocolVersion(nil, minor, unknown)); err != nil {
			return err
		}
	}
	if s.Database() == AdminDatabase && l.p.cfg().Database != AdminDatabase {
		l.admin = true
		return nil
	}
	if l.full {
		return wire.Errorf(wire.TooManyConnections, "sorry, too many clients already").
			WithHint("At most %d clients may be connected; raise max_clients.", l.p.cfg().MaxClients)
	}
	if l.p.draining.Load() {
		return wire.Errorf(wire.CannotConnectNow, "the proxy is shutting down")
	}
	if s.Database() != l.p.cfg().Database {
		return wire.Errorf(wire.InvalidCatalogName, "database %q does not exist", s.Database()).
			WithHint("This proxy serves the database %q.", l.p.cfg().Database)
	}
	return nil
}

// parseOptions reads the startup parameter "options": -c name=value and --name=value, as the server's command line.
func parseOptions(s string) ([]wire.Parameter, error) {
	var params []wire.Parameter
	words := splitOptions(s)
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == "-c" && i+1 < len(words):
			i++
			w = words[i]
		case strings.HasPrefix(w, "-c"):
			w = w[2:]
		case strings.HasPrefix(w, "--"):
			w = w[2:]
		default:
			return nil, wire.Errorf(wire.InvalidParameterValue, "invalid command-line argument for server process: %s", w).
				WithHint("Only -c name=value and --name=value are known.")
		}
		name, value, ok := strings.Cut(w, "=")
		if !ok || name == "" {
			return nil, wire.Errorf(wire.InvalidParameterValue, "-c %s requires a value", w)
		}
		params = append(params, wire.Parameter{Name: strings.ReplaceAll(name, "-", "_"), Value: value})
	}
	return params, nil
}

// splitOptions splits at white space; a backslash takes the next character as it is (pg_split_opts).
func splitOptions(s string) []string {
	var words []string
	var word []byte
	in := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			word, in = append(word, s[i]), true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v':
			if in {
				words = append(words, string(word))
				word, in = word[:0], false
			}
		default:
			word, in = append(word, c), true
		}
	}
	if in {
		words = append(words, string(word))
	}
	return words
}

// authenticate runs SCRAM-SHA-256. Names that do not exist run the same exchange against a verifier that nothing fits.
func (l *login) authenticate() error {
	verifier, known := l.p.live.Load().users[l.user]
	if !known {
		verifier = wire.MockVerifier(l.p.mockSecret, l.user)
	}
	scram, err := wire.NewSCRAM(verifier)
	if err != nil {
		return err
	}
	if _, err := l.conn.Write(wire.AppendAuthenticationSASL(nil, wire.MechanismSCRAM)); err != nil {
		return err
	}
	body, err := l.message(wire.MsgPassword)
	if err != nil {
		return err
	}
	initial, err := wire.DecodeSASLInitial(body)
	if err != nil {
		return err
	}
	challenge, err := scram.First(initial)
	if err != nil {
		return err
	}
	if _, err := l.conn.Write(wire.AppendAuthenticationSASLContinue(nil, challenge)); err != nil {
		return err
	}
	if body, err = l.message(wire.MsgPassword); err != nil {
		return err
	}
	final, err := scram.Final(body)
	if errors.Is(err, wire.ErrWrongPassword) {
		return wire.Errorf(wire.InvalidPassword, "password authentication failed for user %q", l.user)
	}
	if err != nil {
		return err
	}
	msg := wire.AppendAuthenticationSASLFinal(nil, final)
	_, err = l.conn.Write(wire.AppendAuthenticationOK(msg))
	return err
}

// message reads one message of the given type, small as those of a login are.
func (l *login) message(typ byte) ([]byte, error) {
	var head [wire.HeaderLen]byte
	if err := readFull(l.conn, head[:]); err != nil {
		return nil, err
	}
	size := int(int32(binary.BigEndian.Uint32(head[1:])))
	if head[0] != typ {
		return nil, wire.Errorf(wire.ProtocolViolation, "expected SASL response, got message type %d", head[0])
	}
	if size < 4 || size > wire.AuthMessageLimit {
		return nil, wire.Errorf(wire.ProtocolViolation, "invalid message length")
	}
	body := make([]byte, size-4)
	return body, readFull(l.conn, body)
}

func readFull(c net.Conn, b []byte) error {
	for len(b) > 0 {
		n, err := c.Read(b)
		b = b[n:]
		if err != nil && len(b) > 0 {
			return err
		}
	}
	return nil
}

// cancelKey makes the secret that a client shows to cancel: 4 bytes in protocol 3.0, 32 from 3.2 on.
func cancelKey(version uint32) ([]byte, error) {
	n := 4
	if version >= wire.Protocol32 {
		n = 32
	}
	key := make([]byte, n)
	_, err := rand.Read(key)
	return key, err
}
