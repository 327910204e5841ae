package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidemarkdb/tidemark/internal/backend"
)

// A client that has got half a message cannot be told an error any more: the log tells what became of its server connection, and that
// its session ended for it.
func TestLogOfTornMessages(t *testing.T) {
	var log lockedBuffer
	f := newFixture(t, fixtureSpec{shards: 1, log: &log})
	primary := f.cluster.Shards[0].Primary
	fp := newFaultProxy(t, net.JoinHostPort(primary.Host, fmt.Sprint(primary.Port)))
	f.spec.endpoint = fp.addr
	f.spec.backend = func(c *backend.Config) { c.PoolSize, c.SSLMode = 1, "disable" }
	engines(t, func(t *testing.T, engineName string) {
		before := len(log.String())
		p := f.run(t, engineName)
		eventually(t, "the log tells of a torn message", func() error {
			w, err := tryWire(t, p.dsn)
			if err != nil {
				return err
			}
			defer func() { _ = w.conn.Close() }()
			fp.amid(fault{kind: "cut"}, 'D')
			write(t, w.conn, frame('Q', "select repeat('a long row', 100000)\x00"))
			err = untilAnswered(w)
			fp.set(fault{})
			if err != nil {
				return err
			}
			said := log.String()[before:]
			for _, want := range []string{
				"level=WARN msg=\"server connection lost\"", "server_pid=", "",
				"level=WARN msg=\"session ended without an error message\"",
			} {
				if !strings.Contains(said, want) {
					return fmt.Errorf("%s is not in the log", want)
				}
			}
			return nil
		})
	})
}

// A server connection is cut, is reset, or stands still with nobody closing it, in the middle of a message of every kind that a
// server sends, of its login too. The client has what it asked for, a proper error, or the end of its connection; then all is whole.
func TestFaultsAmidEveryMessage(t *testing.T) {
	parse := func(sql string) []byte { return frame('P', "\x00"+sql+"\x00\x00\x00") }
	bind, describe, execute, sync := frame('B', "\x00\x00\x00\x00\x00\x00\x00\x00"), frame('D', "P\x00"), frame('E', "\x00\x00\x00\x00\x00"), frame('S', "")
	query := func(sql string) []byte { return frame('Q', sql+"\x00") }
	extended := frames(parse("select 'an answer'::text"), bind, describe, execute, sync)
	messages := []struct {
		amid       byte
		first, ask []byte // what is asked before the fault is set, and what is answered by such a message
	}{
		{'R', nil, query("select 1")}, // of a login: the connections are opened anew for it
		{'S', nil, query("select 1")},
		{'K', nil, query("select 1")},
		{'1', nil, extended},
		{'2', nil, extended},
		{'T', nil, extended},
		{'D', nil, extended},
		{'C', nil, extended},
		{'Z', nil, extended},
		{'n', nil, frames(parse("truncate faulty"), bind, describe, execute, sync)},
		{'t', nil, frames(parse("select $1::int"), frame('D', "S\x00"), sync)},
		{'3', query("begin; select txid_current()"), frames(parse("select 2"), bind, frame('C', "P\x00"), sync)},
		{'s', nil, frames(parse("select generate_series(1, 5)"), bind, frame('E', "\x00\x00\x00\x00\x02"), sync)},
		{'I', query("begin; select txid_current()"), frames(parse(""), bind, execute, sync)},
		{'E', nil, query("select 1 / 0")},
		{'N', nil, query("do $$ begin raise notice 'a notice'; end $$")},
		{'G', nil, query("copy faulty from stdin")},
		{'H', nil, query("copy (select 'copied') to stdout")},
		{'d', nil, query("copy (select 'copied') to stdout")},
		{'c', nil, query("copy (select 'copied') to stdout")},
		{'V', nil, frame('F', "\x00\x00\x00\xb1\x00\x00\x00\x02\x00\x00\x00\x011\x00\x00\x00\x012\x00\x00")},
		{'S', query("select 1"), query("set application_name = 'another'")},
		{'T', nil, query("select 'simple'")},
		{'D', nil, query("select repeat('a long row', 100000)")},
	}
	f := newFixture(t, fixtureSpec{shards: 1})
	primary := f.cluster.Shards[0].Primary
	fp := newFaultProxy(t, net.JoinHostPort(primary.Host, fmt.Sprint(primary.Port)))
	f.spec.endpoint = fp.addr
	f.spec.backend = func(c *backend.Config) {
		c.PoolSize, c.SSLMode = 1, "disable"
		c.HealthInterval = 50 * time.Millisecond
		c.ConnectTimeout, c.SilenceLimit = 400*time.Millisecond, 400*time.Millisecond
	}
	exec(t, connect(t, f.direct(0)), "create table faulty (a text)")
	for n, engineName := range []string{"epoll", "goroutines"} {
		t.Run(engineName, func(t *testing.T) {
			p := f.run(t, engineName)
			for i, m := range messages {
				for k, kind := range []string{"cut", "reset", "still"} {
					if (i+k)%2 != n {
						continue // each engine has half of them: they take their time
					}
					what := fmt.Sprintf("%s amid %q, number %d", kind, m.amid, i)
					felt := false
					for try := 0; try < 5 && !felt; try++ { // on a busy machine the server may be given up before
						w := &wireClient{}
						eventually(t, "a client comes in", func() (err error) {
							w, err = tryWire(t, p.dsn)
							return err
						})
						if m.first != nil {
							write(t, w.conn, m.first)
							if err := untilAnswered(w); err != nil {
								t.Errorf("%s: %v", what, err)
							}
						}
						if strings.ContainsRune("RSK", rune(m.amid)) && m.first == nil {
							p.backend.Reconnect()
						}
						hit := fp.amid(fault{kind: kind}, m.amid)
						_, _ = w.conn.Write(m.ask) // it may have been ended by now
						if err := untilAnswered(w); err != nil {
							t.Errorf("%s: %v", what, err)
						}
						felt = hit()
						fp.set(fault{})
						_ = w.conn.Close()
					}
					if !felt {
						t.Errorf("%s: the fault was not felt", what)
					}
					eventually(t, "the next client is served behind "+what, func() error {
						next, err := tryWire(t, p.dsn)
						if err != nil {
							return err
						}
						defer func() { _ = next.conn.Close() }()
						write(t, next.conn, query("select 'next'"))
						m, err := next.fe.Receive()
						for err == nil {
							switch x := m.(type) {
							case *pgproto3.DataRow:
								if string(x.Values[0]) != "next" {
									t.Errorf("behind %s: %q", what, x.Values[0])
								}
								return nil
							case *pgproto3.ErrorResponse:
								return errors.New(x.Message)
							}
							m, err = next.fe.Receive()
						}
						return err
					})
				}
			}
			whole(t, p, 0)
		})
	}
}

// untilAnswered reads answers up to ReadyForQuery, or to the end of the connection. A COPY is ended. The error is for what may not be.
func untilAnswered(w *wireClient) error {
	if err := w.conn.SetDeadline(time.Now().Add(40 * time.Second)); err != nil {
		return err
	}
	for {
		m, err := w.fe.Receive()
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			return errors.New("no answer")
		}
		if err != nil {
			return nil
		}
		switch x := m.(type) {
		case *pgproto3.ReadyForQuery:
			return nil
		case *pgproto3.CopyInResponse:
			if _, err := w.conn.Write(frame('c', "")); err != nil {
				return nil
			}
		case *pgproto3.ErrorResponse:
			if c := x.Code; !strings.HasPrefix(c, "08") && !strings.HasPrefix(c, "57") && c != "22012" {
				return fmt.Errorf("%s %s", c, x.Message)
			}
		}
	}
}

// tryWire is dialWire, which may fail.
func tryWire(t *testing.T, dsn string) (*wireClient, error) {
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	return wireTo(ctx, t, dsn)
}
