package proxy_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidemarkdb/tidemark/proxy"
)

// Large messages of all clients share memory: what there is none for is refused, by Query, Parse and Bind, and its session goes on; a
// client that does not end its message has to go, and then there is room again.
func TestMessageMemory(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 2, tables: shopTables, config: func(c *proxy.Config) {
		c.MaxMessage, c.MessageMemory, c.MessageTimeout = 8<<20, 16<<20, 8*time.Second // well above what a client in bulk is read by
	}})
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		admin := connect(t, p.dsn)
		exec(t, admin, "drop table if exists customers")
		exec(t, admin, "create table customers (id bigint primary key, name text)")
		big := strings.Repeat("x", 7<<20)
		asks := map[string][]pgproto3.FrontendMessage{
			"Query": {&pgproto3.Query{String: "select length('" + big + "')"}},
			"Parse": {&pgproto3.Parse{Query: "select length('" + big + "')"}, &pgproto3.Sync{}},
			"Bind": {
				&pgproto3.Parse{Query: "select from customers where id = $1 and name = $2"}, &pgproto3.Bind{Parameters: [][]byte{[]byte("1"), []byte(big)}},
				&pgproto3.Execute{}, &pgproto3.Sync{},
			},
		}
		c := dialWire(t, p.dsn)
		for name, messages := range asks {
			if code := c.codeOf(t, messages...); code != "" {
				t.Errorf("%s: %s", name, code)
			}
		}
		stalled := dialWire(t, p.dsn) // takes 8 MB for what it has begun, and leaves less than others need while theirs grows
		begun := append([]byte{'Q'}, binary.BigEndian.AppendUint32(nil, 8<<20-1)...)
		if _, err := stalled.conn.Write(append(begun, bytes.Repeat([]byte(" "), 5<<20)...)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "its part has come", func() error { // else it could be the one that is refused
			if n := p.proxy.Stats().MessageBytes; n < 8<<20-1 {
				return fmt.Errorf("%d bytes are taken", n)
			}
			return nil
		})
		refused := map[string]bool{}
		for deadline := time.Now().Add(wirePatience); len(refused) < len(asks) && time.Now().Before(deadline); {
			for name, messages := range asks {
				if code := c.codeOf(t, messages...); code == "53200" {
					refused[name] = true
				} else if code != "" {
					t.Fatalf("%s: %s", name, code)
				}
				if code := c.codeOf(t, &pgproto3.Query{String: "select 1"}); code != "" {
					t.Fatalf("behind %s: %s", name, code)
				}
			}
		}
		if len(refused) < len(asks) {
			t.Errorf("only these were refused: %v", refused)
		}
		if e, err := receive[*pgproto3.ErrorResponse](stalled); err != nil || e.Code != "08P01" || e.Severity != "FATAL" {
			t.Errorf("who does not end his message is told %v, %v", e, err)
		}
		for name, messages := range asks {
			if code := c.codeOf(t, messages...); code != "" {
				t.Errorf("%s, when there is room again: %s", name, code)
			}
		}
	})
}

// So is a Bind whose names and formats alone are large, while they are read.
func TestMessageMemoryOfFormats(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, config: func(c *proxy.Config) { c.MaxMessage, c.MessageMemory = 1<<10, 32<<10 }})
	engines(t, func(t *testing.T, engineName string) {
		c := dialWire(t, f.start(t, engineName))
		formats := make([]int16, 20_000)
		for _, begin := range []string{"", "begin", "select 1"} {
			c.codeOf(t, &pgproto3.Query{String: begin})
			if code := c.codeOf(t, &pgproto3.Bind{ParameterFormatCodes: formats, Parameters: make([][]byte, len(formats))}, &pgproto3.Execute{}, &pgproto3.Sync{}); code != "53200" {
				t.Errorf("behind %q: %s", begin, code)
			}
		}
		if code := c.codeOf(t, &pgproto3.Query{String: "select 1"}); code != "25P02" {
			t.Errorf("in the transaction: %s", code)
		}
		if code := c.codeOf(t, &pgproto3.Query{String: "rollback; select 1"}); code != "" {
			t.Errorf("behind it: %s", code)
		}
	})
}

// codeOf sends what asks for one ReadyForQuery, and returns the SQLSTATE of its error; empty: there is none.
func (c *wireClient) codeOf(t *testing.T, messages ...pgproto3.FrontendMessage) (code string) {
	t.Helper()
	c.send(t, messages...)
	for {
		m, err := c.fe.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			code = m.Code
		case *pgproto3.ReadyForQuery:
			return code
		}
	}
}
