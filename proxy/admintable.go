package proxy

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidemarkdb/tidemark/cqrs"
)

// Table is a table of this process's own state: small, made anew by each scan. It is a view like any read model, so that
// filters, ORDER BY, LIMIT and count(*) work the same. docs/admin.md is generated from these.
type Table struct {
	Name string // in the admin database
	Doc  string
	Cols []TableColumn
	Rows func() [][][]byte // in the order of Cols; nil is NULL
}

// TableColumn is a column: Text, Int, Bool, Float or Time makes one.
type TableColumn struct {
	Name string
	OID  uint32
	Doc  string
}

// Text is a column of type text.
func Text(name, doc string) TableColumn { return TableColumn{name, pgtype.TextOID, doc} }

// Int is a column of type bigint.
func Int(name, doc string) TableColumn { return TableColumn{name, pgtype.Int8OID, doc} }

// Bool is a column of type boolean.
func Bool(name, doc string) TableColumn { return TableColumn{name, pgtype.BoolOID, doc} }

// Float is a column of type double precision.
func Float(name, doc string) TableColumn { return TableColumn{name, pgtype.Float8OID, doc} }

// Time is a column of type timestamp with time zone, shown in UTC.
func Time(name, doc string) TableColumn { return TableColumn{name, pgtype.TimestamptzOID, doc} }

// TextValue and the others make a value in PostgreSQL's text form.
func TextValue(s string) []byte { return []byte(s) }

// TextOrNull is NULL for an empty text.
func TextOrNull(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

// IntValue is a value of an Int column.
func IntValue[T int | int64 | uint64 | uint32](n T) []byte {
	return strconv.AppendInt(nil, int64(n), 10)
}

// BoolValue is a value of a Bool column.
func BoolValue(b bool) []byte {
	if b {
		return []byte("t")
	}
	return []byte("f")
}

// FloatValue is a value of a Float column.
func FloatValue(x float64) []byte { return strconv.AppendFloat(nil, x, 'g', -1, 64) }

// TimeValue is a value of a Time column; NULL for the zero time.
func TimeValue(t time.Time) []byte {
	if t.IsZero() {
		return nil
	}
	return t.UTC().AppendFormat(nil, "2006-01-02 15:04:05.999999+00")
}

// tableSortBytes bounds what ORDER BY over such a table may hold.
const tableSortBytes = 64 << 20

// tableView is a Table under a name, with its columns as views have them.
type tableView struct {
	name string
	t    Table
	cols []cqrs.Column
}

// View is the table as a read model of the given name.
func (t Table) View(name string) cqrs.View {
	v := tableView{name: name, t: t}
	for _, c := range t.Cols {
		v.cols = append(v.cols, cqrs.Column{Name: c.Name, OID: c.OID, TypeMod: -1})
	}
	return v
}

// Name implements cqrs.View.
func (v tableView) Name() string { return v.name }

// Columns implements cqrs.View.
func (v tableView) Columns() []cqrs.Column { return v.cols }

// Refresh implements cqrs.View: nothing lags.
func (v tableView) Refresh(context.Context) error { return nil }

// Scan implements cqrs.View.
func (v tableView) Scan(_ context.Context, q cqrs.Query, emit func(row [][]byte) error) error {
	filter, err := cqrs.NewFilter(v.cols, q.Where)
	if err != nil {
		return err
	}
	out, err := cqrs.NewCollector(v.cols, q, tableSortBytes, emit)
	if err != nil {
		return err
	}
	if out.Done() {
		return out.Finish()
	}
	for _, row := range v.t.Rows() {
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
	return out.Finish()
}
