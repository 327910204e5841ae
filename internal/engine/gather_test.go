package engine

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// Requests that come together leave together, before many have gathered and in order.
func TestGather(t *testing.T) {
	e := loop.NewGoroutines()
	near, far := net.Pipe()
	server, err := e.Adopt(near)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(far) // until the other side has closed
		got <- b
	}()
	l := &Link{Conn: &backend.Conn{IO: server}, Shard: "s1"}
	ask := wire.AppendQuery(nil, "SELECT 1")
	var want []byte
	for range 3 {
		l.Gather(ask)
		want = append(want, ask...)
		if !bytes.Equal(l.Out(), want) {
			t.Fatalf("%q waits, want %q", l.Out(), want)
		}
	}
	l.Send(ask) // the last one does not overtake them
	want = append(want, ask...)
	if l.Push(); len(l.Out()) > 0 {
		t.Errorf("%q waits behind Push", l.Out())
	}
	for range gatherSize/len(ask) + 1 {
		l.Gather(ask)
		want = append(want, ask...)
	}
	if len(l.Out()) >= gatherSize {
		t.Errorf("%d bytes wait", len(l.Out()))
	}
	l.Push()
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if b := <-got; !bytes.Equal(b, want) {
		t.Errorf("%d bytes have come, want %d: %.100q", len(b), len(want), b)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestBehind(t *testing.T) {
	query, sync := string(wire.AppendQuery(nil, "SELECT 1")), string(wire.AppendSync(nil))
	for _, tc := range []struct {
		behind string
		want   bool
	}{
		{"", false},
		{"Q\x00\x00\x00", false},
		{query[:len(query)-1], false},
		{query, true},
		{sync, true},
		{sync + "Q", true},
		{"\x01\x00\x00\x00\x04", false}, // no message
	} {
		r := &Relay{}
		r.in.b = []byte(query + tc.behind)
		r.in.w = len(r.in.b)
		if got := r.Behind(len(query)); got != tc.want {
			t.Errorf("behind a query %q: %v, want %v", tc.behind, got, tc.want)
		}
	}
}
