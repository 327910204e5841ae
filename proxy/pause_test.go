package proxy_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/tidemarkdb/tidemark/proxy"
	"github.com/tidemarkdb/tidemark/sharding"
)

// A client that pauses in the middle of a message which has gone on to a server in part, or of a large one that is skipped, is ended, and
// others have the connection. Between messages it may pause.
func TestPauseWithinAMessage(t *testing.T) {
	const pause = 300 * time.Millisecond
	dealt := []sharding.Table{{Name: "dealt", Kind: sharding.Sharded, Column: "k", Type: sharding.Int8}}
	f := newFixture(t, fixtureSpec{shards: 2, tables: dealt, pool: 1, config: func(c *proxy.Config) { c.MessageTimeout, c.MaxMessage = pause, 50_000 }})
	for i := range 2 {
		exec(t, connect(t, f.direct(i)), "create table paused (a text); create table dealt (k bigint, a text)")
	}
	long := strings.Repeat("x", 100_000)
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		for name, sent := range map[string][]byte{
			"Bind":      frames(frame('P', "a\x00select $1::text\x00\x00\x00"), frame('B', "\x00a\x00\x00\x00\x00\x01\x00\x01\x86\xa0"+long+"\x00\x00")),
			"CopyData":  frames(frame('Q', "copy paused from stdin\x00"), frame('d', long+"\n")),
			"split":     frames(frame('Q', "copy dealt from stdin\x00"), frame('d', "1\t"+long+"\n")),
			"names":     frames(frame('Q', "begin\x00"), frame('Q', "select 1\x00"), frame('B', long+"\x00\x00\x00\x00\x00\x00\x00\x00")),
			"too large": frames(frame('Q', "begin\x00"), frame('Q', "select 1\x00"), frame('Q', "select '"+long+"'\x00")),
			"skipped":   frames(frame('Q', "begin\x00"), frame('Q', "select 1\x00"), frame('B', "\x00nosuch\x00\x00\x00\x00\x00\x00\x00"), frame('P', "\x00"+long+"\x00\x00\x00")),
		} {
			c := dialWire(t, p.dsn).conn
			write(t, c, sent[:len(sent)-50_000])
			if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			heard, err := io.ReadAll(c)
			if err != nil || !bytes.Contains(heard, []byte("SFATAL\x00VFATAL\x00C08P01\x00")) {
				t.Errorf("%s: the client hears %q, %v", name, heard, err)
			}
			_ = c.Close()
			whole(t, p, 0)
		}
		c := dialWire(t, p.dsn).conn
		write(t, c, frames(frame('Q', "copy paused from stdin\x00"), frame('d', long+"\n")))
		time.Sleep(3 * pause)
		write(t, c, frames(frame('d', long+"\n"), frame('c', "")))
		if got, err := shapeOfAnswer(c); got != "G C Z" || err != nil {
			t.Errorf("a COPY with a pause: %s, %v", got, err)
		}
	})
}
