package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// statView is a table of this process's own numbers: small, read anew by each scan.
type statView struct {
	name    string
	columns []cqrs.Column
	rows    func() [][][]byte // in the order of columns; nil is NULL
}

var _ cqrs.View = statView{}

// statSortBytes bounds what ORDER BY over such a table may hold.
const statSortBytes = 16 << 20

// Name implements cqrs.View.
func (v statView) Name() string { return v.name }

// Columns implements cqrs.View.
func (v statView) Columns() []cqrs.Column { return v.columns }

// Refresh implements cqrs.View: nothing lags.
func (v statView) Refresh(context.Context) error { return nil }

// Scan implements cqrs.View.
func (v statView) Scan(_ context.Context, q cqrs.Query, emit func(row [][]byte) error) error {
	filter, err := cqrs.NewFilter(v.columns, q.Where)
	if err != nil {
		return err
	}
	out, err := cqrs.NewCollector(v.columns, q, statSortBytes, emit)
	if err != nil {
		return err
	}
	if !out.Done() {
		for _, row := range v.rows() {
			matches, err := filter.Match(row)
			if err == nil && matches {
				err = out.Take(row)
			}
			if errors.Is(err, cqrs.ErrEnough) {
				break
			}
			if err != nil {
				return err
			}
		}
	}
	return out.Finish()
}

func textColumn(name string) cqrs.Column {
	return cqrs.Column{Name: name, OID: pgtype.TextOID, TypeMod: -1}
}

func intColumn(name string) cqrs.Column {
	return cqrs.Column{Name: name, OID: pgtype.Int8OID, TypeMod: -1}
}

func boolColumn(name string) cqrs.Column {
	return cqrs.Column{Name: name, OID: pgtype.BoolOID, TypeMod: -1}
}

func textValue(s string) []byte { return []byte(s) }
func intValue[T int | int64 | uint64 | uint32](n T) []byte {
	return strconv.AppendInt(nil, int64(n), 10)
}

func boolValue(b bool) []byte {
	if b {
		return []byte("t")
	}
	return []byte("f")
}

// lagView is how far every read model has come with every shard.
func lagView(levels *cqrs.Levels) statView {
	position := func(m lsn.Mark) []byte {
		if m == (lsn.Mark{}) {
			return nil // not known yet
		}
		return textValue(m.LSN.String())
	}
	return statView{
		name: "tidemark.lag",
		columns: []cqrs.Column{
			textColumn("view"), textColumn("shard"),
			textColumn("level"),     // the position that the view has reached; NULL: not known yet
			textColumn("published"), // the position up to which the shard's changes are on Kafka
			intColumn("behind"),     // events of the view's topics, of all shards together, that wait to be applied
			intColumn("dead_letters"),
		},
		rows: func() (rows [][][]byte) {
			for _, g := range levels.Lags() {
				rows = append(rows, [][]byte{
					textValue(g.View.Name), textValue(g.Shard), position(g.Level), position(g.Published), intValue(g.Events), intValue(g.Exceptions),
				})
			}
			return rows
		},
	}
}

// endpointsView is what the health checks found.
func endpointsView(b *backend.Backend) statView {
	return statView{
		name: "tidemark.endpoints",
		columns: []cqrs.Column{
			textColumn("shard"), textColumn("endpoint"), textColumn("region"), textColumn("role"), boolColumn("healthy"),
			textColumn("level"), intColumn("lag_ms"), intColumn("timeline"), intColumn("server_version"), textColumn("error"),
		},
		rows: func() (rows [][][]byte) {
			for _, s := range b.Shards() {
				for _, e := range s.Endpoints() {
					st := e.Status()
					var failure []byte
					if st.Err != nil {
						failure = textValue(st.Err.Error())
					}
					rows = append(rows, [][]byte{
						textValue(s.Name()), textValue(e.Name()), textValue(e.Region()), textValue(e.Role().String()), boolValue(e.Healthy()),
						textValue(e.Level().String()), intValue(st.Lag.Milliseconds()), intValue(st.Timeline), intValue(st.ServerVersion), failure,
					})
				}
			}
			return rows
		},
	}
}

// poolsView is the server connections.
func poolsView(b *backend.Backend) statView {
	return statView{
		name: "tidemark.pools",
		columns: []cqrs.Column{
			textColumn("shard"), textColumn("endpoint"), textColumn("database"), textColumn("username"), intColumn("size"), intColumn("active"), intColumn("idle"),
			intColumn("opening"), intColumn("waiting"), intColumn("waits"), intColumn("wait_ms"), intColumn("timeouts"), intColumn("opened"), intColumn("failures"),
		},
		rows: func() (rows [][][]byte) {
			for _, p := range b.Stats() {
				rows = append(rows, [][]byte{
					textValue(p.Shard), textValue(p.Endpoint), textValue(p.Database), textValue(p.User), intValue(p.Size), intValue(p.Active), intValue(p.Idle),
					intValue(p.Opening), intValue(p.Waiting), intValue(p.Waits), intValue(p.WaitTime.Milliseconds()), intValue(p.Timeouts), intValue(p.Opened), intValue(p.Failures),
				})
			}
			return rows
		},
	}
}
