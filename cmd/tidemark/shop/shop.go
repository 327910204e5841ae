// Package shop generates the demo's data: customers, products, orders and their lines, the same for the same Shop, in
// PostgreSQL's COPY text format. Tests can compute from it what a query must answer.
package shop

import (
	"bufio"
	_ "embed"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"
)

//go:embed schema.sql
var schema string

//go:embed constraints.sql
var constraints string

// Schema are the statements that create the four tables.
func Schema() []string { return split(schema) }

// Constraints are the statements that add foreign keys and indexes: behind the rows, because that is several times faster than
// checking each row as it comes. Every foreign key stays within a shard: rows of one customer live together, and products are everywhere.
func Constraints() []string { return split(constraints) }

// split cuts at semicolons at the end of a line.
func split(script string) []string {
	statements := strings.SplitAfter(script, ";\n")
	return statements[:len(statements)-1]
}

// Shop is how much of everything there is. Ids count from 1. Orders have one to four lines.
type Shop struct {
	Seed      uint64
	Customers int
	Products  int
	Orders    int
}

// Demo is the shop of tidemark demo.
var Demo = Shop{Seed: 1, Customers: 10_000, Products: 1_000, Orders: 100_000}

// Table is one table's data.
type Table struct {
	Name    string
	Columns []string
	// write writes all rows; the Writer keeps the first error.
	write func(w *bufio.Writer)
}

// Tables are in an order that satisfies the foreign keys.
func (s Shop) Tables() []Table {
	return []Table{
		{"products", []string{"id", "name", "description", "category", "price", "stock"}, func(w *bufio.Writer) {
			for id := 1; id <= s.Products; id++ {
				p := s.Product(id)
				row(w, "%d\t%s\t%s\t%s\t%v\t%d\n", p.ID, p.Name, p.Description, p.Category, p.Price, p.Stock)
			}
		}},
		{"customers", []string{"id", "name", "email", "city", "country", "joined"}, func(w *bufio.Writer) {
			for id := 1; id <= s.Customers; id++ {
				c := s.Customer(id)
				row(w, "%d\t%s\t%s\t%s\t%s\t%s\n", c.ID, c.Name, c.Email, c.City, c.Country, c.Joined.Format(time.DateOnly))
			}
		}},
		{"orders", []string{"customer_id", "id", "status", "total", "placed", "note"}, func(w *bufio.Writer) {
			for id := 1; id <= s.Orders; id++ {
				o := s.Order(id)
				note := `\N`
				if o.Note != "" {
					note = o.Note
				}
				row(w, "%d\t%d\t%s\t%v\t%s\t%s\n", o.CustomerID, o.ID, o.Status, o.Total, o.Placed.Format(time.RFC3339), note)
			}
		}},
		{"order_lines", []string{"customer_id", "order_id", "line", "product_id", "quantity", "price"}, func(w *bufio.Writer) {
			for id := 1; id <= s.Orders; id++ {
				o := s.Order(id)
				for i, l := range o.Lines {
					row(w, "%d\t%d\t%d\t%d\t%d\t%v\n", o.CustomerID, o.ID, i+1, l.ProductID, l.Quantity, l.Price)
				}
			}
		}},
	}
}

// row writes one line. A bufio.Writer keeps its first error, which Rows passes on.
func row(w *bufio.Writer, format string, values ...any) {
	_, _ = fmt.Fprintf(w, format, values...)
}

// Copy is the statement that Rows belongs to.
func (t Table) Copy() string {
	return "COPY " + t.Name + " (" + strings.Join(t.Columns, ", ") + ") FROM STDIN"
}

// Rows reads the rows as they are generated. It must be read to its end or closed.
func (t Table) Rows() io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		b := bufio.NewWriterSize(w, 64<<10)
		t.write(b) // a closed reader makes the rest of the writes fail at once
		_ = w.CloseWithError(b.Flush())
	}()
	return r
}

// Cents is an amount of money.
type Cents int64

func (c Cents) String() string { return fmt.Sprintf("%d.%02d", c/100, c%100) }

// Product is a row of products.
type Product struct {
	ID                          int
	Name, Description, Category string
	Price                       Cents
	Stock                       int
}

// Product generates the product with that id.
func (s Shop) Product(id int) Product {
	r := s.rand(1, id)
	g, colour, material := goods[r.IntN(len(goods))], pick(r, colours), pick(r, materials)
	return Product{
		ID: id, Category: g.category, Price: Cents(500 + r.IntN(30_000)), Stock: r.IntN(500),
		Name:        fmt.Sprintf("%s%s %s %s", strings.ToUpper(colour[:1]), colour[1:], material, g.name),
		Description: fmt.Sprintf("%s %s in %s, %s. %s", strings.ToUpper(material[:1])+material[1:], g.name, colour, g.use, pick(r, qualities)),
	}
}

// Customer is a row of customers.
type Customer struct {
	ID                         int
	Name, Email, City, Country string
	Joined                     time.Time
}

// Customer generates the customer with that id.
func (s Shop) Customer(id int) Customer {
	r := s.rand(2, id)
	first, last, home := pick(r, firstNames), pick(r, lastNames), pick(r, cities)
	return Customer{
		ID: id, Name: first + " " + last, Email: fmt.Sprintf("customer%d@example.com", id), City: home.city, Country: home.country,
		Joined: firstDay.AddDate(-r.IntN(5), 0, -r.IntN(365)),
	}
}

// Order is a row of orders with its lines.
type Order struct {
	CustomerID, ID int
	Status         string
	Total          Cents
	Placed         time.Time
	Note           string // empty: NULL
	Lines          []Line
}

// Line is a row of order_lines.
type Line struct {
	ProductID, Quantity int
	Price               Cents
}

// Order generates the order with that id. Some customers order much more than others.
func (s Shop) Order(id int) Order {
	r := s.rand(3, id)
	u := r.Float64()
	o := Order{CustomerID: 1 + int(u*u*float64(s.Customers)), ID: id, Status: pick(r, statuses)}
	o.Placed = firstDay.Add(time.Duration(id) * 365 * 24 * time.Hour / time.Duration(s.Orders)).Truncate(time.Second)
	if r.IntN(5) == 0 {
		o.Note = pick(r, notes)
	}
	for range 1 + r.IntN(4) {
		p := s.Product(1 + r.IntN(s.Products))
		l := Line{ProductID: p.ID, Quantity: 1 + r.IntN(3), Price: p.Price}
		o.Lines = append(o.Lines, l)
		o.Total += l.Price * Cents(l.Quantity)
	}
	return o
}

// firstDay is when the oldest order was placed.
var firstDay = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// rand gives every row its own stream, so that any one can be generated alone.
func (s Shop) rand(kind, id int) *rand.Rand {
	return rand.New(rand.NewPCG(s.Seed, uint64(kind)<<32|uint64(id))) //nolint:gosec // data for a demo
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }
