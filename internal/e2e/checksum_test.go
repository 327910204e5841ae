package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// rows are a table's, in PostgreSQL's text form, one line each, sorted.
type rows []string

// sum is the checksum over all rows and columns.
func (r rows) sum() string {
	h := sha256.New()
	for _, line := range r {
		_, _ = fmt.Fprintf(h, "%d:%s", len(line), line) // a hash.Hash never fails
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// readRows runs one SELECT by the simple protocol, so that values are text.
func readRows(ctx context.Context, conn *pgconn.PgConn, sql string) (rows, error) {
	var r rows
	result := conn.Exec(ctx, sql)
	for result.NextResult() {
		reader := result.ResultReader()
		for reader.NextRow() {
			var b strings.Builder
			for _, v := range reader.Values() {
				if v == nil {
					b.WriteString("\x1fNULL")
				} else {
					fmt.Fprintf(&b, "\x1f%q", v)
				}
			}
			r = append(r, b.String())
		}
		if _, err := reader.Close(); err != nil {
			return nil, fmt.Errorf("%s: %w", sql, err)
		}
	}
	if err := result.Close(); err != nil {
		return nil, fmt.Errorf("%s: %w", sql, err)
	}
	return sorted(r), nil
}

func sorted(r rows) rows {
	slices.Sort(r)
	return r
}

// truth reads a table from the shards' primaries, behind the proxy's back.
func (s *system) truth(sql string) rows {
	s.t.Helper()
	ctx := within(s.t, patience)
	var all rows
	for _, shard := range s.cluster.Shards {
		conn, err := pgx.Connect(ctx, shard.Primary.DSN(s.database))
		if err != nil {
			s.t.Fatal(err)
		}
		if _, err := conn.Exec(ctx, "SET TimeZone = UTC"); err != nil {
			s.t.Fatal(err)
		}
		r, err := readRows(ctx, conn.PgConn(), sql)
		if err != nil {
			s.t.Fatalf("%s: %v", shard.Name, err)
		}
		all = append(all, r...)
		if err := conn.Close(ctx); err != nil {
			s.t.Fatal(err)
		}
	}
	return sorted(all)
}

// compareViews fails the test when a view is not equal to its table, by checksum over all columns. The session must have written to every
// shard after all writes in question: then its reads wait until the views have them, and nothing is asked twice.
func (s *system) compareViews(conn *pgx.Conn, columns string, of map[string]string) {
	s.t.Helper()
	for view, table := range of {
		want := s.truth("SELECT " + columns + " FROM " + table)
		begun := time.Now()
		got, err := readRows(within(s.t, patience), conn.PgConn(), "SELECT "+columns+" FROM "+view)
		if err != nil {
			s.t.Errorf("read %s: %v", view, err)
			continue
		}
		equal(s.t, view, want, got)
		s.t.Logf("%s: %d rows, checksum %s, in the table %s (read in %v)", view, len(got), got.sum(), want.sum(), time.Since(begun).Round(time.Millisecond))
		if len(want) == 0 {
			s.t.Errorf("%s is empty, which proves nothing", table)
		}
	}
}

// equal fails the test when the checksums differ, and shows some rows.
func equal(t *testing.T, what string, want, got rows) {
	t.Helper()
	if want.sum() == got.sum() {
		return
	}
	const show = 5
	only := func(a, b rows) (d []string) {
		have := make(map[string]int, len(b))
		for _, r := range b {
			have[r]++
		}
		for _, r := range a {
			if have[r]--; have[r] < 0 {
				d = append(d, r)
			}
		}
		return d
	}
	missing, extra := only(want, got), only(got, want)
	t.Errorf("%s differs: %d rows with checksum %s, want %d with %s; %d missing:\n%s\n%d too many:\n%s", what, len(got), got.sum(), len(want), want.sum(),
		len(missing), strings.Join(missing[:min(show, len(missing))], "\n"), len(extra), strings.Join(extra[:min(show, len(extra))], "\n"))
}
