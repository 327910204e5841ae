package router

import (
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/sql"
)

// SQL's PREPARE, EXECUTE and DEALLOCATE speak of statements that the session keeps, and the router knows no session. So their
// plan says only what is meant; where an EXECUTE goes is found with the template of the statement that it names.

// Prepared is a statement about a prepared statement.
type Prepared struct {
	Op    PreparedOp
	Name  string
	Types []uint32 // PrepareOp: the declared types of the parameters; OpaqueType for those that have no number here
	Args  []Arg    // ExecuteOp, ExplainOp and CreateOp: the arguments
	Flags Flags    // ... and what the functions in them mean
	Outer *Plan    // CreateOp: the plan of CREATE TABLE around it
	// Analyze: EXPLAIN ANALYZE does run it.
	Analyze bool
}

// PreparedOp is what a statement does to a prepared statement.
type PreparedOp uint8

// The operations on prepared statements.
const (
	PrepareOp PreparedOp = iota
	ExecuteOp
	DeallocateOp
	ExplainOp // EXPLAIN EXECUTE
	CreateOp  // CREATE TABLE AS EXECUTE
)

var preparedOpNames = [...]string{
	PrepareOp: "prepare", ExecuteOp: "execute", DeallocateOp: "deallocate", ExplainOp: "explain", CreateOp: "create",
}

func (o PreparedOp) String() string { return preparedOpNames[o] }

// Arg is an argument of an EXECUTE as far as routing cares.
type Arg struct {
	Value []byte // as text; nil for NULL
	Plain bool   // it is a constant or NULL
	Known bool   // ... whose value no conversion to the parameter's type can change
}

// OpaqueType stands for a type of a parameter that routing cannot follow: pg_type's "any".
const OpaqueType = 2276

func (s *statement) prepared(op PreparedOp) *compiled {
	x := &Prepared{Op: op, Name: s.f.Name, Analyze: s.f.Analyzes}
	p := &Plan{Kind: OfPrepared, Prepared: x}
	switch op {
	case PrepareOp:
		p.Tag = "PREPARE"
		for _, name := range s.f.Types {
			oid := uint32(OpaqueType)
			if t, ok := casts[name]; ok {
				oid = t.OID()
			}
			x.Types = append(x.Types, oid)
		}
		return s.fixedPlan(p)
	case DeallocateOp:
		p.Tag = "DEALLOCATE"
		return s.fixedPlan(p)
	case CreateOp:
		outer := s.createTableAs()
		if outer.always == nil || outer.always.Kind == Refuse {
			return outer
		}
		x.Outer = outer.always
	case ExplainOp:
		x.Flags = s.explainCreates()
	}
	calls := s.calls()
	if calls.refusal == nil {
		calls.refusal = s.needs(calls, where{shard: -1}) // which shard it is hangs on the statement that it names
	}
	if calls.refusal != nil {
		return s.fixed(calls.refusal)
	}
	if calls.writes {
		x.Flags |= Writes
	}
	if calls.dirty {
		x.Flags |= Dirty
	}
	if calls.pin {
		x.Flags |= Pin
	}
	x.Flags |= calls.leaves
	c := s.fixedPlan(p)
	if len(s.f.Args) > 0 {
		c.always, c.args, c.cost = nil, s.f.Args, c.cost+int64(len(s.f.Args))*120
	}
	return c
}

// bindArgs reads the arguments of an EXECUTE.
func (c *compiled) bindArgs(src *source) *Plan {
	p, x := *c.generic, *c.generic.Prepared
	x.Args = make([]Arg, len(c.args))
	for i := range c.args {
		x.Args[i] = src.arg(&c.args[i])
	}
	p.Prepared = &x
	return &p
}

// arg is an argument. Whatever type its parameter has, PostgreSQL must read the same value from the text as it makes of the
// expression: so of numbers only plain integers are known, and of casts none that could change the text.
func (src *source) arg(v *sql.Value) Arg {
	if v.Kind == sql.Null {
		return Arg{Plain: true, Known: true}
	}
	if v.Kind != sql.Lit && v.Kind != sql.Fixed {
		return Arg{}
	}
	data, _, kind, _ := src.value(v)
	if kind == opaque {
		return Arg{}
	}
	a := Arg{Value: append([]byte{}, data...), Plain: true, Known: kind == untyped || kind == integer && plainInteger(data)} // data may be in a buffer of the source
	switch v.Cast {
	case "":
	case "int2", "int4", "int8":
		a.Known = plainInteger(data)
	case "text", "varchar", "uuid":
		a.Known = kind == untyped
	default:
		a.Known = false
	}
	return a
}

// plainInteger says whether an integer is written as PostgreSQL prints it.
func plainInteger(b []byte) bool {
	if len(b) > 1 && b[0] == '-' && b[1] != '0' {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 1 && b[0] == '0' {
		return false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// Execute is the plan of the template's statement for the arguments of an EXECUTE. An argument that is not known is no
// obstacle unless a key hangs on it.
func (t *Template) Execute(x *Prepared) *Plan {
	if t.c.generic.Kind == OfPrepared { // a server would do it, under a name that the session does not know of and others would meet
		return t.refuse("EXECUTE of a statement that is itself PREPARE, EXECUTE or DEALLOCATE is not supported", "", "Run that directly.")
	}
	p := t.c.always
	if t.c.scan != nil {
		for _, a := range x.Args {
			if !a.Plain {
				return t.refuse("EXECUTE of a query on a read model with a computed argument is not supported", "No server takes part that could compute it.", "Give the values as constants.")
			}
		}
		if want := len(t.c.scan.params); len(x.Args) != want {
			return &Plan{Kind: Refuse, Refusal: &Refusal{
				Code: "42601", Message: fmt.Sprintf("wrong number of parameters for prepared statement \"%s\"", x.Name),
				Detail: fmt.Sprintf("Expected %d parameters but got %d.", want, len(x.Args)),
			}, shards: t.c.generic.shards}
		}
	}
	if p == nil {
		src := &source{text: t.text, lits: t.lits, oids: t.oids}
		for i, a := range x.Args {
			src.values = append(src.values, a.Value)
			src.unknown = append(src.unknown, !a.Known)
			if t.c.scan != nil {
				src.unknown[i] = false
			} else if a.Value != nil && i < len(t.oids) && t.oids[i] == OpaqueType {
				src.unknown[i] = true
			}
		}
		p = t.c.bind(src)
		if src.short { // any server says that arguments are missing
			return &Plan{Kind: AnyShard, Command: t.c.generic.Command, Flags: Neutral, Shards: []int{t.c.generic.shards.Default()}, shards: t.c.generic.shards, Reason: "arguments are missing"}
		}
	}
	if p.Kind == Refuse || p.Kind == ViewScan || x.Op == ExecuteOp && x.Flags == 0 {
		return p
	}
	q := *p
	q.Flags |= x.Flags
	if x.Op == ExecuteOp && x.Flags&Writes != 0 { // the functions in its arguments run there
		q.Access, q.Flags = Write, q.Flags&^Neutral
	}
	switch x.Op {
	case ExplainOp:
		return t.explained(&q, x)
	case CreateOp:
		return t.created(&q, x)
	}
	return &q
}

func (t *Template) explained(q *Plan, x *Prepared) *Plan {
	switch {
	case q.Kind == Broadcast && x.Analyze:
		return t.refuse("EXPLAIN ANALYZE of a write to a reference table is not supported", "It would run on every shard.", "Use EXPLAIN without ANALYZE.")
	case q.Kind == Broadcast:
		q.Kind = AnyShard
	case q.Kind == Scatter && len(q.Shards) > 1:
		return t.refuse("EXPLAIN over several shards is not supported", "The query reads all shards of its tables, and only a plain SELECT can.", "Add a condition that the key equals a constant or a parameter.")
	}
	q.Command = sql.Explain
	utility := q.Kind == Setting && !q.Setting.Own
	if utility {
		q.Kind = AnyShard
	}
	if x.Analyze && x.Flags&Writes != 0 {
		q.Access, q.Flags = Write, q.Flags&^Neutral
	}
	if !x.Analyze || utility {
		q.Flags &^= leftByRunning
		q.Flags |= x.Flags
		if q.Kind != Setting {
			q.Setting = nil
		}
	}
	return q
}

func (t *Template) created(q *Plan, x *Prepared) *Plan {
	if (q.Kind != Route && q.Kind != AnyShard) || !within(q.Shards, x.Outer.Shards[0]) || t.c.keys != nil {
		return t.refuse("creating a table from a query on sharded tables is not supported", "The new table would be made on one shard.", "Create the table first, then fill it with INSERT or COPY.")
	}
	p := *x.Outer
	p.Flags |= q.Flags &^ Neutral
	p.Setting = q.Setting
	return &p
}

func (t *Template) refuse(message, detail, hint string) *Plan {
	return &Plan{Kind: Refuse, Refusal: refuse(message, detail, hint), shards: t.c.generic.shards}
}
