package redis

import (
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidemarkdb/tidemark/cqrs"
)

// FuzzDocument: a document that somebody else has written into the store is an error, or a row.
func FuzzDocument(f *testing.F) {
	for _, s := range []string{`{"id":7,"note":"x","paid":true,"at":"2024-02-29 12:00:00+00","tags":["a",null]}`, `{"id":"7","note":null}`, `{"paid":"t","tags":{}}`, `null`, `[]`, `{"id":1e999}`} {
		f.Add([]byte(s))
	}
	m, err := New(Config{Name: "m", URL: "redis://127.0.0.1:1", Mode: JSON, Columns: []cqrs.Column{
		{Name: "id", OID: pgtype.Int8OID, Key: true},
		{Name: "note", OID: pgtype.TextOID},
		{Name: "paid", OID: pgtype.BoolOID},
		{Name: "at", OID: pgtype.TimestamptzOID},
		{Name: "n", OID: pgtype.NumericOID},
		{Name: "tags", OID: pgtype.TextArrayOID},
	}})
	if err != nil {
		f.Fatal(err)
	}
	s := &scan{model: m, fields: []int{0, 1, 2, 3, 4, 5}}
	f.Fuzz(func(t *testing.T, doc []byte) {
		if row, err := s.parse(doc); err == nil && len(row) != 6 {
			t.Fatalf("%q: %d columns", doc, len(row))
		}
	})
}
