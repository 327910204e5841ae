package proxy

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// login is one client on its way in. It runs on the client's task, as the session behind it does, and leaves the loop only for what
// blocks or takes long: see await. What it reads ahead of the session is nothing, because a client waits for ReadyForQuery before
// it sends its first request.
type login struct {
	p      *Proxy
	live   *live // the configuration that the client came under
	task   *loop.Task
	conn   *loop.Conn
	until  time.Time // when the client must have said what is awaited
	buf    []byte
	out    []byte       // what the client is to hear with what comes next: it costs less together
	full   bool         // there are as many clients as may be
	silent atomic.Int64 // since when a message of the client is awaited, in Unix nanoseconds; 0: none is
	late   atomic.Bool  // it had to make room for others
	told   bool         // why it is refused
	// handshake is the connection while TLS begins over it, away from the loop; else nil.
	handshake atomic.Pointer[net.Conn]

	user     string
	admin    bool // it comes for the admin database
	database string
	params   []wire.Parameter // the settings that the client asked for
	version  uint32
	tls      *tls.ConnectionState // nil: none
	binding  []byte               // tls-server-end-point; nil: the channel cannot be bound

	known bool // there is such a user: for the log alone

	// What authentication leaves.
	method   Method
	secret   Secret           // stored
	password string           // received
	keys     *wire.ClientKeys // recovered
	identity *backend.Identity
}

func newLogin(p *Proxy, t *loop.Task, conn *loop.Conn) *login {
	return &login{p: p, live: p.live.Load(), task: t, conn: conn}
}

// errDone ends a login that was answered and is over: a cancel request, or a client that left.
var errDone = errors.New("login is over")

// errLate ends a login whose client kept silent while others had no room.
var errLate = errors.New("the client kept silent while others waited to log in")

// run takes the client to where a session can begin. An error that it returns has been told to the client.
func (l *login) run() error {
	err := l.p.doorstep.enter(l, l.live.MaxLogins)
	if err == nil {
		err = l.enter()
		l.p.doorstep.leave(l)
	}
	if err != nil {
		return l.refuse(err)
	}
	return nil
}

// enter takes the client through all that it must say.
func (l *login) enter() error {
	end := time.Now().Add(l.live.LoginTimeout)
	l.until = time.Now().Add(min(firstWord, l.live.LoginTimeout))
	start, err := l.startup(end)
	if err != nil {
		return err
	}
	if err := l.accept(start); err != nil {
		return err
	}
	if err := l.awaitStart(); err != nil {
		return err
	}
	if err := l.authenticate(); err != nil {
		return err
	}
	return l.open()
}

// refuse tells the client why, if it should hear, and passes the error on.
func (l *login) refuse(err error) error {
	var e *wire.Error
	switch {
	case errors.Is(err, errDone):
		return err
	case l.late.Load():
		return errLate
	case !errors.As(err, &e):
		return err // the connection failed: nobody listens
	}
	l.until = time.Now().Add(farewellTime)
	l.told = true
	answer := wire.AppendErrorResponse(nil, e.Fatal())
	if old := l.version >> 16; old == 1 || old == 2 {
		answer = wire.AppendOldError(nil, e)
	}
	if werr := l.write(answer); werr != nil {
		return errors.Join(err, werr)
	}
	return err
}

// startup answers SSLRequest and GSSENCRequest, each at most once, until the startup message or a cancel request comes.
// Behind the first packet the login may take until end.
func (l *login) startup(end time.Time) (wire.Startup, error) {
	askedTLS, askedGSS := false, false
	for first := true; ; first = false {
		s, err := l.packet(first)
		if err != nil {
			return s, err
		}
		if first {
			l.until = end
		}
		switch s.Kind {
		case wire.SSLRequest:
			if l.tls != nil || askedTLS {
				return s, wire.Errorf(wire.ProtocolViolation, "unexpected SSL request")
			}
			askedTLS = true
			if l.live.tls == nil || isLocal(l.conn) {
				if err := l.write([]byte{'N'}); err != nil {
					return s, err
				}
				continue
			}
			if err := l.write([]byte{'S'}); err != nil {
				return s, err
			}
			if err := l.encrypt(false); err != nil {
				return s, err
			}
		case wire.GSSENCRequest:
			if l.tls != nil || askedGSS {
				return s, wire.Errorf(wire.ProtocolViolation, "unexpected GSSAPI encryption request")
			}
			askedGSS = true
			if err := l.write([]byte{'N'}); err != nil {
				return s, err
			}
		case wire.CancelRequest:
			l.await(func(context.Context) { l.p.Cancel(s.PID, s.Key) })
			return s, errDone
		case wire.StartupMessage:
			return s, nil
		}
	}
}

// packet reads one packet of the startup family, and not a byte more: what follows an SSLRequest belongs to TLS. In place
// of the first packet TLS itself may begin.
func (l *login) packet(first bool) (wire.Startup, error) {
	l.buf = l.buf[:0]
	for {
		s, n, need, err := wire.NextStartup(l.buf)
		if err != nil || n > 0 {
			l.version = s.Version
			return s, err
		}
		have := len(l.buf)
		l.buf = append(l.buf, make([]byte, need-have)...)
		if err := l.read(l.buf[have:]); err != nil {
			if have == 0 {
				return s, errDone // a port check, or a client that changed its mind
			}
			return s, err
		}
		if first && have == 0 && l.buf[0] == wire.TLSHandshake {
			if err := l.direct(); err != nil {
				return s, err
			}
			first, l.buf = false, l.buf[:0]
		}
	}
}

// accept checks who comes and what for.
func (l *login) accept(s wire.Startup) error {
	if l.live.RequireTLS && l.tls == nil && !isLocal(l.conn) {
		return errNeedsTLS()
	}
	l.user, l.database, l.version = s.User(), s.Database(), s.Version
	for _, p := range s.Params {
		switch {
		case p.Name == "user" || p.Name == "database" || strings.HasPrefix(p.Name, "_pq_."):
		case p.Name == "replication":
			if on := strings.ToLower(p.Value); on != "false" && on != "off" && on != "no" && on != "0" {
				return wire.Errorf(wire.FeatureNotSupported, "replication connections are not supported").
					WithHint("Connect to the shard's own PostgreSQL server.")
			}
		case strings.EqualFold(p.Name, "session_authorization"): // that is the user; PostgreSQL passes it over, too
		case p.Name == "options":
			opts, err := parseOptions(p.Value)
			if err != nil {
				return err
			}
			l.params = slices.Insert(l.params, 0, opts...) // what has a parameter of its own comes last, wherever that stands
		default:
			l.params = append(l.params, p)
		}
	}
	if minor, unknown, needed := s.Negotiate(); needed {
		l.version = wire.Protocol30 | uint32(minor)
		if err := l.write(wire.AppendNegotiateProtocolVersion(nil, minor, unknown)); err != nil {
			return err
		}
	}
	if l.database == AdminDatabase && l.live.Database != AdminDatabase {
		l.admin = true
		return nil
	}
	if l.full {
		return wire.Errorf(wire.TooManyConnections, "sorry, too many clients already").
			WithHint("At most %d clients may be connected; raise clients.max.", l.live.MaxClients)
	}
	if l.p.draining.Load() {
		return errShuttingDown()
	}
	return nil
}

// open says whether there is what the client, now known, wants to use.
func (l *login) open() (err error) {
	if l.admin {
		return nil
	}
	if l.database != l.live.Database {
		return wire.Errorf(wire.InvalidCatalogName, "database \"%s\" does not exist", l.database).
			WithHint("This proxy serves the database \"%s\".", l.live.Database)
	}
	l.identity, err = l.serverIdentity()
	return err
}

// saslLimit bounds a SASL message, in bytes. SCRAM's have some hundred.
const saslLimit = 4096

// message reads one PasswordMessage, SASLInitialResponse or SASLResponse, all of one type. what is for the client's error.
func (l *login) message(what string, limit int) ([]byte, error) {
	var head [wire.HeaderLen]byte
	if err := l.read(head[:]); errors.Is(err, io.EOF) {
		return nil, errDone // to ask its user for the password
	} else if err != nil {
		return nil, err
	}
	size := int(int32(binary.BigEndian.Uint32(head[1:])))
	if head[0] != wire.MsgPassword {
		return nil, wire.Errorf(wire.ProtocolViolation, "expected %s response, got message type %d", what, head[0])
	}
	if size < 4 || size > limit {
		return nil, wire.Errorf(wire.ProtocolViolation, "invalid message length")
	}
	body := make([]byte, size-4)
	return body, l.read(body)
}

func isLocal(c *loop.Conn) bool { return c.RemoteAddr().Network() == "unix" }

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
