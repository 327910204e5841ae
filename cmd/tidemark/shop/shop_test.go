package shop

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// The demo's data is part of its documentation: the same rows for ever.
func TestDemoIsDeterministic(t *testing.T) {
	small := Shop{Seed: 1, Customers: 100, Products: 50, Orders: 500}
	want := map[string]string{
		"products":    "50 rows 9c27c1d6a27d",
		"customers":   "100 rows 7bd67518113b",
		"orders":      "500 rows 0a8066888aa4",
		"order_lines": "1242 rows 4d8759ad727b",
	}
	for _, table := range small.Tables() {
		first, second := read(t, table), read(t, table)
		if !bytes.Equal(first, second) {
			t.Errorf("%s differs between two runs", table.Name)
		}
		got := fmt.Sprintf("%d rows", bytes.Count(first, []byte("\n")))
		sum := fmt.Sprintf("%x", sha256.Sum256(first))[:12]
		if got+" "+sum != want[table.Name] {
			t.Errorf("%s: %s %s, want %s", table.Name, got, sum, want[table.Name])
		}
		for line := range strings.Lines(string(first)) {
			if n := strings.Count(line, "\t") + 1; n != len(table.Columns) {
				t.Fatalf("%s: %d columns in %q, want %d", table.Name, n, line, len(table.Columns))
			}
		}
	}
}

func TestOrdersAddUp(t *testing.T) {
	s := Shop{Seed: 7, Customers: 10, Products: 5, Orders: 100}
	for id := 1; id <= s.Orders; id++ {
		o := s.Order(id)
		var sum Cents
		for _, l := range o.Lines {
			if l.Price != s.Product(l.ProductID).Price {
				t.Errorf("order %d: product %d for %v, its price is %v", id, l.ProductID, l.Price, s.Product(l.ProductID).Price)
			}
			sum += l.Price * Cents(l.Quantity)
		}
		if sum != o.Total || o.CustomerID < 1 || o.CustomerID > s.Customers {
			t.Errorf("order %+v: the lines sum up to %v", o, sum)
		}
	}
}

// Closing the rows early ends their generator.
func TestRowsCanBeLeft(t *testing.T) {
	rows := Demo.Tables()[2].Rows()
	if _, err := io.ReadFull(rows, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := rows.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("reading after Close: %v", err)
	}
}

func read(t *testing.T, table Table) []byte {
	t.Helper()
	rows := table.Rows()
	defer func() { _ = rows.Close() }()
	b, err := io.ReadAll(rows)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
