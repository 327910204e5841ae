package router

import (
	"fmt"
	"strconv"
	"strings"
)

// String is the plan as a tree, for golden tests, logs and EXPLAIN.
func (p *Plan) String() string {
	var b strings.Builder
	b.WriteString(p.Kind.String())
	switch p.Kind {
	case Refuse:
		p.Refusal.write(&b)
		return b.String()
	case Nothing:
		return b.String()
	case Tx:
		p.Tx.write(&b)
		return b.String()
	case Setting:
		p.Setting.write(&b)
		return b.String()
	case OfPrepared:
		p.Prepared.write(&b)
		return b.String()
	}
	if p.Kind != ViewScan {
		names := make([]string, len(p.Shards))
		for i := range p.Shards {
			names[i] = p.Shard(i)
		}
		fmt.Fprintf(&b, " %s %s", strings.Join(names, ","), p.Access)
	}
	for i, name := range flagNames {
		if p.Flags&(1<<i) != 0 {
			b.WriteString(" " + name)
		}
	}
	if p.Reason != "" {
		b.WriteString("\n  why: " + p.Reason)
	}
	for c := p.Setting; c != nil; c = c.Next {
		b.WriteString("\n  setting:")
		c.write(&b)
	}
	if p.Copy != nil {
		p.Copy.write(&b)
	}
	if p.Scan != nil {
		p.Scan.write(&b)
	}
	return b.String()
}

func (r *Refusal) write(b *strings.Builder) {
	fmt.Fprintf(b, " %s: %s", r.Code, r.Message)
	if r.Position > 0 {
		fmt.Fprintf(b, " (at %d)", r.Position)
	}
	if r.Detail != "" {
		b.WriteString("\n  detail: " + r.Detail)
	}
	if r.Hint != "" {
		b.WriteString("\n  hint: " + r.Hint)
	}
}

func (t *TxControl) write(b *strings.Builder) {
	b.WriteString(" " + t.Op.String())
	if t.Name != "" {
		b.WriteString(" " + t.Name)
	}
	if t.Isolation != "" {
		b.WriteString(" isolation=" + strconv.Quote(t.Isolation))
	}
	for _, o := range []struct {
		name  string
		state Tristate
	}{{"read-only", t.ReadOnly}, {"deferrable", t.Deferrable}} {
		switch o.state {
		case On:
			b.WriteString(" " + o.name)
		case Off:
			b.WriteString(" not-" + o.name)
		}
	}
	if t.Chain {
		b.WriteString(" chain")
	}
}

func (s *SettingChange) write(b *strings.Builder) {
	b.WriteString(" " + s.Op.String())
	if s.Local {
		b.WriteString(" local")
	}
	if s.Name != "" {
		b.WriteString(" " + s.Name)
	}
	if s.Op == SetOp {
		fmt.Fprintf(b, " = %q", s.Values)
	}
	if s.Own {
		b.WriteString(" own")
	}
}

func (x *Prepared) write(b *strings.Builder) {
	fmt.Fprintf(b, " %s %s", x.Op, x.Name)
	if len(x.Types) > 0 {
		fmt.Fprintf(b, " types %v", x.Types)
	}
	for _, a := range x.Args {
		switch {
		case !a.Known:
			b.WriteString(" ?")
		case a.Value == nil:
			b.WriteString(" null")
		default:
			fmt.Fprintf(b, " %q", a.Value)
		}
	}
}

func (c *Copy) write(b *strings.Builder) {
	fmt.Fprintf(b, "\n  copy: %s.%s", c.Schema, c.Table)
	if len(c.Columns) > 0 {
		fmt.Fprintf(b, " (%s)", strings.Join(c.Columns, ", "))
	}
	if c.Key >= 0 {
		fmt.Fprintf(b, " key %s %s delimiter %q null %q", c.Columns[c.Key], c.Type, c.Delimiter, c.Null)
	}
}

func (s *Scan) write(b *strings.Builder) {
	fmt.Fprintf(b, "\n  view: %s", s.View)
	cols := make([]string, len(s.Columns))
	for i, c := range s.Columns {
		switch {
		case c.Column == "":
			cols[i] = "count(*) as " + c.Name
		case c.Column != c.Name:
			cols[i] = c.Column + " as " + c.Name
		default:
			cols[i] = c.Name
		}
	}
	fmt.Fprintf(b, "\n  columns: %s", strings.Join(cols, ", "))
	for _, p := range s.Where {
		fmt.Fprintf(b, "\n  where: %s %s", p.Column, p.Op)
		if p.Op != IsNull && p.Op != NotNull {
			fmt.Fprintf(b, " %q", p.Values)
		}
	}
	for _, o := range s.Order {
		fmt.Fprintf(b, "\n  order: %s", o.Column)
		if o.Desc {
			b.WriteString(" desc")
		}
		if o.NullsFirst {
			b.WriteString(" nulls first")
		}
	}
	if s.Limit >= 0 {
		fmt.Fprintf(b, "\n  limit: %d", s.Limit)
	}
	if s.Offset > 0 {
		fmt.Fprintf(b, "\n  offset: %d", s.Offset)
	}
}
