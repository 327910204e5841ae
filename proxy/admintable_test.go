package proxy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemarkdb/tidemark/cqrs"
)

func TestTableAsView(t *testing.T) {
	v := Table{
		Name: "test",
		Cols: []TableColumn{Text("name", ""), Int("n", ""), Bool("ok", "")},
		Rows: func() [][][]byte {
			return [][][]byte{
				{TextValue("b"), IntValue(10), BoolValue(true)},
				{TextValue("a"), IntValue(9), BoolValue(false)},
				{TextValue("c"), nil, BoolValue(true)},
			}
		},
	}.View("tidemark.test")
	for _, test := range []struct {
		name string
		q    cqrs.Query
		want []string
	}{
		{"all", cqrs.Query{Columns: []string{"name", "n", "ok"}, Limit: -1}, []string{"b 10 t", "a 9 f", "c - t"}},
		{"numbers, not texts, are compared", cqrs.Query{Columns: []string{"name"}, Limit: -1, Order: []cqrs.Order{{Column: "n"}}}, []string{"a", "b", "c"}},
		{"where", cqrs.Query{Columns: []string{"name"}, Limit: -1, Where: []cqrs.Predicate{{Column: "ok", Op: cqrs.Eq, Values: []string{"t"}}}}, []string{"b", "c"}},
		{"limit", cqrs.Query{Columns: []string{"name"}, Limit: 1, Offset: 1}, []string{"a"}},
		{"limit 0", cqrs.Query{Columns: []string{"name"}, Limit: 0}, nil},
		{"count", cqrs.Query{Count: true, Limit: -1}, []string{"3"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			err := v.Scan(t.Context(), test.q, func(row [][]byte) error {
				var parts []string
				for _, value := range row {
					if value == nil {
						value = []byte("-")
					}
					parts = append(parts, string(value))
				}
				got = append(got, strings.Join(parts, " "))
				return nil
			})
			if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
				t.Errorf("error %v, rows (-want +got)\n%s", err, diff)
			}
		})
	}
}
