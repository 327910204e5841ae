package main

import (
	"context"
	"strings"
	"testing"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/internal/config"
)

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
