package proxy_test

import (
	"encoding/binary"
	"math/rand"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// A cancel request that comes with the first statement of a transaction ends that statement or comes too late. It does not end the BEGIN
// that goes to the server ahead of it, behind which the statement would be for good.
func TestCancelAsATransactionBegins(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1})
	engines(t, func(t *testing.T, engineName string) {
		dsn := f.start(t, engineName)
		c, d := connect(t, dsn), connect(t, f.direct(0))
		exec(t, d, "drop table if exists begun; create table begun (a int)", pgx.QueryExecModeSimpleProtocol)
		exec(t, d, "grant all on begun to public")
		key := c.PgConn().SecretKey()
		request := binary.BigEndian.AppendUint32(nil, uint32(12+len(key)))
		request = binary.BigEndian.AppendUint32(request, 1234<<16|5678)
		request = append(binary.BigEndian.AppendUint32(request, c.PgConn().PID()), key...)
		h, err := c.PgConn().Hijack()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = h.Conn.Close() }()
		fe := pgproto3.NewFrontend(h.Conn, h.Conn)
		ask := func(sql string, between func()) (status byte, failed bool) {
			fe.Send(&pgproto3.Query{String: sql})
			between()
			if err := fe.Flush(); err != nil {
				t.Fatal(err)
			}
			for {
				m, err := fe.Receive()
				if err != nil {
					t.Fatal(err)
				}
				switch m := m.(type) {
				case *pgproto3.ErrorResponse:
					failed = true
				case *pgproto3.ReadyForQuery:
					return m.TxStatus, failed
				}
			}
		}
		cancelled := 0
		for range 2000 {
			ask("begin", func() {})
			other, err := net.Dial("tcp", h.Conn.RemoteAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			status, failed := ask("insert into begun values (1)", func() {
				_, _ = other.Write(request)
				for until := time.Now().Add(time.Duration(rand.Intn(800)) * time.Microsecond); time.Now().Before(until); {
				}
			})
			if failed {
				cancelled++
			}
			if status == 'I' {
				t.Fatal("the statement has run outside of its transaction")
			}
			_, _ = other.Read(make([]byte, 1)) // until it is closed: it has been delivered
			_ = other.Close()
			ask("rollback", func() {})
		}
		if n := text(t, d, "select count(*)::text from begun"); n != "0" {
			t.Errorf("%s rows were not rolled back", n)
		}
		t.Logf("%d of 2000 were cancelled", cancelled)
	})
}
