package backend

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// A server's refusal keeps its own SQLSTATE and words, and gets a hint where it has none.
func TestHintsAtRefusals(t *testing.T) {
	e := &Endpoint{shard: &Shard{name: "s1"}, name: "db:5432"}
	for _, code := range []string{wire.TooManyConnections, wire.CannotConnectNow, wire.InvalidPassword, wire.InvalidAuthorizationSpecification} {
		w := e.connectError(&pgconn.PgError{Code: code, Message: "no"}, "app")
		if w.Code != code || w.Message != "no" || w.Hint == "" || w.Detail == "" || w.EndsSession() {
			t.Errorf("%s: %+v", code, w)
		}
	}
	if w := e.connectError(&pgconn.PgError{Code: wire.CannotConnectNow, Hint: "its own"}, "app"); w.Hint != "its own" {
		t.Errorf("hint %q", w.Hint)
	}
	for routine, hint := range map[string]string{"InitProcess": "max_connections", "InitializeSessionUserId": "ALTER ROLE", "CheckMyDatabase": "ALTER DATABASE"} {
		if w := e.connectError(&pgconn.PgError{Code: wire.TooManyConnections, Routine: routine}, "app"); !strings.Contains(w.Hint, hint) {
			t.Errorf("%s: hint %q, want one with %q", routine, w.Hint, hint)
		}
	}
	w := e.connectError(io.ErrUnexpectedEOF, "app")
	if w.Code != wire.ConnectionFailure || w.Hint == "" {
		t.Errorf("no answer: %+v", w)
	}
	p := &pool{endpoint: e, b: &Backend{}}
	p.b.live.Store(newLive(Config{HealthInterval: time.Second}, nil))
	if d := p.errDown(time.Now(), w); d.Code != wire.CannotConnectNow || d.Hint == "" || strings.Contains(d.Message, "SQLSTATE") || !errors.Is(d, io.ErrUnexpectedEOF) {
		t.Errorf("down: %+v", d)
	}
}
