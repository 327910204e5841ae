package main

import (
	"bytes"
	"testing"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// What is answered here, and how: batches, once their statement was parsed, and the statement itself.
func TestAnswer(t *testing.T) {
	parse, sync, flush := wire.AppendParse(nil, "p", "SELECT 1", nil), wire.AppendSync(nil), wire.AppendFlush(nil)
	bind := []byte("B\x00\x00\x00\x0d\x00p\x00\x00\x00\x00\x00\x00\x00")
	execute := wire.AppendExecute(nil, "", 0)
	for _, tc := range []struct {
		unit    string
		request [][]byte
		want    string // "-": is passed on
	}{
		{"", [][]byte{wire.AppendQuery(nil, "SELECT 1")}, description + row + ready},
		{"", [][]byte{wire.AppendQuery(nil, "SELECT 2")}, "-"},
		{"", [][]byte{bind, execute, sync}, "-"},
		{"", [][]byte{parse, flush}, "1\x00\x00\x00\x04"},
		{"", [][]byte{parse, bind, execute, sync}, "1\x00\x00\x00\x042\x00\x00\x00\x04" + row + ready},
		{"x", [][]byte{bind, execute, sync}, "2\x00\x00\x00\x04" + row + ready},
		{"", [][]byte{[]byte("C\x00\x00\x00\x07Sp\x00"), parse, sync}, "3\x00\x00\x00\x041\x00\x00\x00\x04" + ready},
		{"x", [][]byte{wire.AppendQuery(nil, "DISCARD ALL")}, "-"},
		{"", [][]byte{[]byte("X\x00\x00\x00\x04")}, "-"},
	} {
		c := &conn{statement: []byte("SELECT 1\x00")}
		if tc.unit != "" {
			c.unit = []byte(tc.unit)
		}
		request := bytes.Join(tc.request, nil)
		got := "-"
		if canned, answer := c.answer(request); canned {
			got = string(answer)
		}
		if got != tc.want {
			t.Errorf("%q: %q, want %q", request, got, tc.want)
		}
	}
}
