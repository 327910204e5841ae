package proxy_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

// rawLogin is a login by frames, with what libpq of this machine may not speak yet.
type rawLogin struct {
	conn net.Conn
	said []string // what the server said, in words
	pid  uint32
	key  []byte
}

// start sends a startup message and takes the login to its end: to ReadyForQuery, or to an error.
func startRaw(t *testing.T, addr, user, password, database string, version uint32, params ...string) *rawLogin {
	t.Helper()
	l := &rawLogin{conn: dialRaw(t, addr)}
	write(t, l.conn, packet(version, append([]string{"user", user, "database", database}, params...)...))
	scram, err := wire.NewSCRAMClient(user, password, nil)
	if err != nil {
		t.Fatal(err)
	}
	var reported []string
	for {
		typ, body := readMessage(t, l.conn)
		switch typ {
		case wire.MsgNegotiateProtocolVersion:
			l.said = append(l.said, fmt.Sprintf("NegotiateProtocolVersion %q", body))
		case wire.MsgAuthentication:
			code, data, err := wire.DecodeAuthentication(body)
			if err != nil {
				t.Fatal(err)
			}
			switch code {
			case wire.AuthSASL:
				l.said = append(l.said, fmt.Sprintf("AuthenticationSASL %q", data))
				write(t, l.conn, wire.AppendSASLInitial(nil, wire.MechanismSCRAM, scram.First()))
			case wire.AuthSASLContinue:
				final, err := scram.Final(data)
				if err != nil {
					t.Fatal(err)
				}
				write(t, l.conn, wire.AppendSASLResponse(nil, final))
			case wire.AuthSASLFinal:
				if err := scram.Verify(data); err != nil {
					t.Fatal(err)
				}
			case wire.AuthOK:
				l.said = append(l.said, "AuthenticationOk")
			default:
				t.Fatalf("authentication request %d", code)
			}
		case wire.MsgParameterStatus:
			name, _, err := wire.DecodeParameterStatus(body)
			if err != nil {
				t.Fatal(err)
			}
			reported = append(reported, string(name))
		case wire.MsgBackendKeyData:
			l.pid, l.key = binary.BigEndian.Uint32(body), body[4:]
			slices.Sort(reported)
			l.said = append(l.said, "ParameterStatus "+strings.Join(reported, " "), fmt.Sprintf("BackendKeyData of %d bytes", len(l.key)))
		case wire.MsgReadyForQuery:
			l.said = append(l.said, fmt.Sprintf("ReadyForQuery %s", body))
			return l
		case wire.MsgErrorResponse:
			e, err := wire.DecodeError(body)
			if err != nil {
				t.Fatal(err)
			}
			l.said = append(l.said, fmt.Sprintf("%s %s %s", e.Severity, e.Code, e.Message))
			return l
		default:
			t.Fatalf("message %q in a login", typ)
		}
	}
}

func readMessage(t *testing.T, c net.Conn) (typ byte, body []byte) {
	t.Helper()
	head := readN(t, c, 5)
	return head[0], readN(t, c, int(binary.BigEndian.Uint32(head[1:]))-4)
}

// Logins of every version, with options of the protocol that nobody knows, go as PostgreSQL's own do; and the cancel keys that
// they end with work, whole and right only.
func TestStartup(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1})
	primary := f.cluster.Shards[0].Primary
	direct := net.JoinHostPort(primary.Host, fmt.Sprint(primary.Port))
	watch := connect(t, f.direct(0))
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		for _, tc := range []struct {
			name    string
			version uint32
			params  []string
			keyLen  int // of the key; 0: there is no login
		}{
			{"3.0", 3 << 16, nil, 4},
			{"3.1", 3<<16 | 1, nil, 4},
			{"3.2", 3<<16 | 2, nil, 32},
			{"3.3", 3<<16 | 3, nil, 32},
			{"3.9999", 3<<16 | 9999, []string{"application_name", "grease"}, 32},
			{"an option of 3.0", 3 << 16, []string{"_pq_.a", "1"}, 4},
			{"options of 3.2", 3<<16 | 2, []string{"_pq_.b", "", "application_name", "x", "_pq_.c", "2"}, 32},
			{"options of 3.9999", 3<<16 | 9999, []string{"_pq_.test_protocol_negotiation", ""}, 32},
			{"4.0", 4 << 16, nil, 0},
		} {
			want := startRaw(t, direct, testcontainers.AppUser, testcontainers.AppPassword, f.database, tc.version, tc.params...)
			got := startRaw(t, p.addr, clientUser, clientPassword, "shop", tc.version, tc.params...)
			if diff := cmp.Diff(want.said, got.said); diff != "" {
				t.Errorf("%s: PostgreSQL -, Tidemark +\n%s", tc.name, diff)
			}
			if len(got.key) != tc.keyLen {
				t.Errorf("%s: a key of %d bytes, want %d", tc.name, len(got.key), tc.keyLen)
			}
			if tc.keyLen == 0 {
				continue
			}
			wrong := slices.Clone(got.key)
			wrong[len(wrong)-1] ^= 1
			mark := fmt.Sprintf("pg_sleep(60) /* %s, %s */", tc.name, engineName)
			write(t, got.conn, frame('Q', "select "+mark+"\x00"))
			eventuallyRunning(t, watch, "%"+mark+"%", "1")
			for _, key := range [][]byte{wrong, append(slices.Clone(got.key), 0), got.key[:len(got.key)-1], got.key[:1]} {
				cancelRaw(t, p.addr, got.pid, key)
			}
			eventuallyRunning(t, watch, "%"+mark+"%", "1") // still
			cancelRaw(t, p.addr, got.pid, got.key)
			typ, body := readMessage(t, got.conn)
			for typ != wire.MsgErrorResponse { // RowDescription
				typ, body = readMessage(t, got.conn)
			}
			if e, err := wire.DecodeError(body); err != nil || e.Code != wire.QueryCanceled {
				t.Errorf("%s: the right key: %v, %v", tc.name, e, err)
			}
			_, _ = got.conn.Close(), want.conn.Close()
		}
		c := connect(t, p.dsn+"&session_authorization=nobody") // who it is says the user
		exec(t, c, "select 1")
		_ = c.Close(t.Context())
		whole(t, p, 0)
	})
}

// A client of protocol 1.0 or 2.0 is refused in words that it can read.
func TestOldProtocols(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1})
	primary := f.cluster.Shards[0].Primary
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		for _, version := range []uint32{1 << 16, 2 << 16} {
			var said [2]string
			for i, addr := range []string{net.JoinHostPort(primary.Host, fmt.Sprint(primary.Port)), p.addr} {
				c := dialRaw(t, addr)
				write(t, c, packet(version, "user", "nobody"))
				b, err := io.ReadAll(c)
				if err != nil {
					t.Fatal(err)
				}
				said[i] = string(b)
				_ = c.Close()
			}
			if said[0] != said[1] {
				t.Errorf("version %d: PostgreSQL says %q, Tidemark %q", version>>16, said[0], said[1])
			}
		}
	})
}

// Libraries are not loaded for a client that begins: so it is not let in, where PostgreSQL loads them or has none of that name.
func TestPreloadAtStart(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1})
	dsn := f.start(t, "epoll")
	for param, want := range map[string]string{
		"session_preload_libraries=none":                     wire.FeatureNotSupported,
		"Local_Preload_Libraries=none":                       wire.FeatureNotSupported,
		"options=-c%20session-preload-libraries%3Dpg_trgm":   wire.FeatureNotSupported,
		"local_preload_libraries=":                           "<nil>",
		"options=-c%20transaction_isolation%3Dwrong":         "22023",
		"transaction_deferrable=wrong":                       "22023",
		"options=-d%203%20-c%20transaction_deferrable%3Doff": "42501", // log_min_messages
	} {
		c, err := pgx.Connect(t.Context(), dsn+"&"+param)
		if code(err) != want {
			t.Errorf("%s: %v, want %q", param, err, want)
		}
		if err == nil {
			_ = c.Close(t.Context())
		}
	}
}

// cancelRaw sends a CancelRequest and waits for the end of its connection, as libpq does.
func cancelRaw(t *testing.T, addr string, pid uint32, key []byte) {
	t.Helper()
	c := dialRaw(t, addr)
	write(t, c, wire.AppendCancelRequest(nil, pid, key))
	if err := untilClosed(c); err != nil {
		t.Error(err)
	}
	_ = c.Close()
}

// A client whose application_name is too long hears of it at its login, whether or not a server is asked then.
func TestLongApplicationName(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2})
	login := func(dsn string, params map[string]string) (notices []string) {
		config, err := pgx.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(config.RuntimeParams, params)
		config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
			notices = append(notices, n.Severity+" "+n.Code+" "+n.Message)
		}
		c, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		notices = append(notices, text(t, c, "show application_name", pgx.QueryExecModeSimpleProtocol))
		_ = c.Close(t.Context())
		return notices
	}
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		for _, params := range []map[string]string{
			{"application_name": strings.Repeat("a", 63)},
			{"application_name": strings.Repeat("a", 64)},
			{"application_name": strings.Repeat("a", 64), "datestyle": "German"},
			{"application_name": "a" + strings.Repeat("ü", 32)},
			{"application_name": strings.Repeat("a", 64), "options": "-c client_min_messages=Warning"},
			{"application_name": strings.Repeat("a", 64), "options": "-c client_min_messages=log"},
			{"application_name": "", "options": "-c application_name=" + strings.Repeat("b", 70)},
		} {
			want := login(f.direct(0), params)
			for range 2 {
				if d := cmp.Diff(want, login(dsn, params)); d != "" {
					t.Errorf("%v: %s", params, d)
				}
			}
		}
	})
}
