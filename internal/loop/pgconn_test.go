package loop

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgproto3/v2"
	"github.com/jackc/pgx/v5/pgconn"
)

// A server connection is opened by pgconn over a wrapped connection, then hijacked and adopted, plain and under TLS.
// The server here speaks only as much of the protocol as the login and one query need; the claim is about pgconn.
func TestAdoptHijackedPgconn(t *testing.T) {
	for _, r := range rigs() {
		if r.transport == "unix" || r.transport == "pipe" {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			b := newBench(t, r, nil)
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer shut(ln)
			served := b.inBackground("server", func() error { return servePostgres(ln, r.transport == "tls") })

			cfg, err := pgconn.ParseConfig("postgres://u@" + ln.Addr().String() + "/d?sslmode=disable")
			if err != nil {
				t.Fatal(err)
			}
			if r.transport == "tls" {
				cfg.TLSConfig = &tls.Config{InsecureSkipVerify: true}
			}
			dial := cfg.DialFunc
			cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				nc, err := dial(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return b.Wrap(nc), nil
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			pc, err := pgconn.ConnectConfig(ctx, cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := pc.SyncConn(ctx); err != nil {
				t.Fatal(err)
			}
			hijacked, err := pc.Hijack()
			if err != nil {
				t.Fatal(err)
			}
			// A deadline that a login left behind must not matter.
			if err := hijacked.Conn.SetDeadline(time.Now().Add(time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			c, err := b.Adopt(hijacked.Conn)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Millisecond)
			if isTLS := c.TLS() != nil; isTLS != (r.transport == "tls") {
				t.Errorf("TLS() != nil is %v", isTLS)
			}
			b.do(func(tk *Task) {
				tk.Own(c)
				if err := writeAll(tk, c, encode(t, &pgproto3.Query{String: "hello"})); err != nil {
					t.Error(err)
				}
				want := string(encode(t, &pgproto3.CommandComplete{CommandTag: []byte("hello")}, &pgproto3.ReadyForQuery{TxStatus: 'I'}))
				got := make([]byte, len(want))
				if err := readFull(tk, c, got); err != nil || string(got) != want {
					t.Errorf("answer %q, %v; want %q", got, err, want)
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
			b.await("server", served)
		})
	}
}

func encode(t *testing.T, msgs ...pgproto3.Message) (out []byte) {
	for _, m := range msgs {
		var err error
		if out, err = m.Encode(out); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// servePostgres accepts one connection, lets anyone in, and answers each Query with its own text as the command tag.
func servePostgres(ln net.Listener, withTLS bool) error {
	nc, err := ln.Accept()
	if err != nil {
		return err
	}
	defer shut(nc)
	if withTLS {
		request := make([]byte, 8)
		if _, err := io.ReadFull(nc, request); err != nil {
			return fmt.Errorf("SSLRequest: %w", err)
		}
		if _, err := nc.Write([]byte("S")); err != nil {
			return err
		}
		nc = tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{certificate()}})
	}
	be := pgproto3.NewBackend(pgproto3.NewChunkReader(nc), nc)
	if _, err := be.ReceiveStartupMessage(); err != nil {
		return fmt.Errorf("startup: %w", err)
	}
	send := func(msgs ...pgproto3.BackendMessage) error {
		var out []byte
		for _, m := range msgs {
			var err error
			if out, err = m.Encode(out); err != nil {
				return err
			}
		}
		_, err := nc.Write(out)
		return err
	}
	ready := &pgproto3.ReadyForQuery{TxStatus: 'I'}
	err = send(&pgproto3.AuthenticationOk{}, &pgproto3.ParameterStatus{Name: "server_version", Value: "18.0"},
		&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: 2}, ready)
	for err == nil {
		var msg pgproto3.FrontendMessage
		if msg, err = be.Receive(); err != nil {
			break
		}
		if q, ok := msg.(*pgproto3.Query); ok {
			err = send(&pgproto3.CommandComplete{CommandTag: []byte(q.String)}, ready)
		}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}
