package main

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/internal/config"
)

func TestStatView(t *testing.T) {
	v := statView{
		name:    "tidemark.test",
		columns: []cqrs.Column{textColumn("name"), intColumn("n"), boolColumn("ok")},
		rows: func() [][][]byte {
			return [][][]byte{
				{textValue("b"), intValue(10), boolValue(true)},
				{textValue("a"), intValue(9), boolValue(false)},
				{textValue("c"), nil, boolValue(true)},
			}
		},
	}
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

// A view whose table does not exist has no columns, so that the proxy leaves it out, and answers nothing.
func TestLateViewWithoutATable(t *testing.T) {
	v := &lateView{v: config.View{Name: "order_search", From: "orders"}}
	if got := v.Columns(); len(got) != 0 {
		t.Errorf("Columns() = %v", got)
	}
	err := v.Scan(context.Background(), cqrs.Query{}, nil)
	if err == nil || !strings.Contains(err.Error(), "orders does not exist") {
		t.Errorf("Scan() = %v", err)
	}
	if err := v.Refresh(context.Background()); err != nil {
		t.Errorf("Refresh() = %v", err)
	}
}
