package proxy_test

import (
	"strings"
	"testing"
	"time"
)

// An error reaches the client while a part of its next message has come: the server skips that message like any other of the batch,
// and so does the proxy, which knows nothing of a reply to it. Drivers that send long batches meet this whenever a read ends amid a message.
func TestErrorAmidMessage(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 1, pool: 1})
	long := strings.Repeat("x", 100_000)
	prepared := frames(frame('P', "a\x00select $1::text\x00\x00\x00"), frame('S', ""))
	failing := frames(frame('P', "\x00select 1 / (random() * 0)::int\x00\x00\x00"), frame('B', "\x00\x00\x00\x00\x00\x00\x00\x00"), frame('E', "\x00\x00\x00\x00\x00"), frame('H', ""))
	behind := map[string][]byte{
		"Parse":                frame('P', "b\x00select 'skipped'\x00\x00\x00"),
		"Parse with an error":  frame('P', "b\x00no statement\x00\x00\x00"),
		"long Parse":           frame('P', "b\x00select '"+long+"'\x00\x00\x00"),
		"Bind":                 frame('B', "\x00a\x00\x00\x00\x00\x01\x00\x00\x00\x03abc\x00\x00"),
		"Bind of nothing":      frame('B', "\x00nosuch\x00\x00\x00\x00\x00\x00\x00"),
		"long Bind":            frame('B', "\x00a\x00\x00\x00\x00\x01\x00\x01\x86\xa0"+long+"\x00\x00"),
		"long Bind of nothing": frame('B', "\x00nosuch\x00\x00\x00\x00\x01\x00\x01\x86\xa0"+long+"\x00\x00"),
		"Describe":             frame('D', "Sa\x00"),
		"Describe of nothing":  frame('D', "Snosuch\x00"),
		"Execute":              frame('E', "\x00\x00\x00\x00\x00"),
		"Close":                frame('C', "Sa\x00"),
	}
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		for name, m := range behind {
			for _, cut := range []int{1, 5, 6, len(m) / 2, len(m) - 1} {
				c := dialWire(t, p.dsn)
				write(t, c.conn, prepared)
				answers(t, c, 'Z')
				write(t, c.conn, frames(failing, m[:cut]))
				answers(t, c, 'E')
				write(t, c.conn, frames(m[cut:], frame('S', "")))
				if got := answers(t, c, 'Z'); got != "Z" {
					t.Errorf("%s, cut at %d: %q instead of ReadyForQuery alone", name, cut, got)
				}
				// The statement that was prepared is there, and what was skipped is not.
				write(t, c.conn, frames(frame('D', "Sa\x00"), frame('S', "")))
				if got := answers(t, c, 'Z'); got != "tTZ" {
					t.Errorf("%s, cut at %d: then %q", name, cut, got)
				}
				write(t, c.conn, frames(frame('D', "Sb\x00"), frame('S', "")))
				if got := answers(t, c, 'Z'); got != "EZ" {
					t.Errorf("%s, cut at %d: the statement that was skipped is described by %q", name, cut, got)
				}
				_ = c.conn.Close()
			}
		}
	})
}

// answers are the types of the messages that come, up to the first of type last.
func answers(t *testing.T, w *wireClient, last byte) string {
	t.Helper()
	_ = w.conn.SetReadDeadline(time.Now().Add(wirePatience))
	var types []byte
	for {
		m, err := w.fe.Receive()
		if err != nil {
			t.Fatalf("%v behind %q", err, types)
		}
		b, err := m.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		if types = append(types, b[0]); b[0] == last {
			return string(types)
		}
	}
}
