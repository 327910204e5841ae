package cqrs

import "fmt"

// Ordering sorts rows in memory as a query asks.
type Ordering struct {
	terms []orderTerm
}

type orderTerm struct {
	index  int
	column Column
	Order
}

// NewOrdering prepares sort keys for rows that hold cols in order. A type without an order is ErrUnsupported.
func NewOrdering(cols []Column, by []Order) (*Ordering, error) {
	o := &Ordering{}
	for _, b := range by {
		i := columnIndex(cols, b.Column)
		if i < 0 {
			return nil, fmt.Errorf("read model has no column %q", b.Column)
		}
		if class := cols[i].Class(); class != Integer && class != Bytes {
			return nil, fmt.Errorf("%w: ORDER BY %s, whose type (oid %d) has no order here", ErrUnsupported, b.Column, cols[i].OID)
		}
		o.terms = append(o.terms, orderTerm{index: i, column: cols[i], Order: b})
	}
	return o, nil
}

// Position is a row's place in an Ordering.
type Position []place

type place struct {
	key  SortKey
	null bool
}

// Of computes a row's place once, before it is compared many times.
func (o *Ordering) Of(row [][]byte) (Position, error) {
	p := make(Position, len(o.terms))
	for i, t := range o.terms {
		if v := row[t.index]; v == nil {
			p[i].null = true
		} else {
			k, err := t.column.SortKey(string(v))
			if err != nil {
				return nil, err
			}
			p[i].key = k
		}
	}
	return p, nil
}

// Compare returns -1, 0 or 1 for the places of two rows.
func (o *Ordering) Compare(a, b Position) int {
	for i, t := range o.terms {
		var c int
		switch {
		case a[i].null && b[i].null:
		case a[i].null != b[i].null:
			if a[i].null == t.NullsFirst {
				return -1
			}
			return 1
		default:
			c = a[i].key.Compare(b[i].key)
		}
		if t.Desc {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	return 0
}
