package router

import (
	"encoding/binary"
	"sync"

	"github.com/tidemarkdb/tidemark/internal/sql"
)

// Template is a parsed statement without the values of its parameters. It is immutable and shared between sessions.
type Template struct {
	c    *compiled
	oids []uint32
	text []byte // the statement's, where literals in it are keys
	lits []sql.Literal
}

// CachedTemplate finds the template of a Parse message if it is in the cache; it never parses.
func (r *Router) CachedTemplate(sc *Scratch, s *Session, query []byte, paramOIDs []uint32) (*Template, bool) {
	sc.key = templateKey(sc.key[:0], s, query, paramOIDs)
	if it := r.cache.get(sc.key); it != nil {
		return it.template, true
	}
	return nil, false
}

func templateKey(key []byte, s *Session, query []byte, oids []uint32) []byte {
	key = append(append(key, 'T'), s.key...)
	key = binary.AppendUvarint(key, uint64(len(oids)))
	for _, o := range oids {
		key = binary.LittleEndian.AppendUint32(key, o)
	}
	return append(key, query...)
}

// Template plans a Parse message: a single statement with parameters. paramOIDs are those of the message; 0 or a
// missing one is unspecified. Errors are found in Template.Generic, whose kind is then Refuse. query and paramOIDs may
// be reused after the call. On a miss it parses: see Costly.
func (r *Router) Template(sc *Scratch, s *Session, query []byte, paramOIDs []uint32) *Template {
	if t, ok := r.CachedTemplate(sc, s, query, paramOIDs); ok {
		return t
	}
	t := &Template{oids: append([]uint32(nil), paramOIDs...)}
	fixed := func(p *Plan) *Template {
		t.c = &compiled{generic: p, always: p, cost: planCost}
		return t
	}
	if sc.read(query) && len(sc.scan.Statements) == 0 {
		return fixed(r.nothing)
	}
	if it := r.lookup(sc, s, query); it != nil && len(it.stmts) == 1 { // another text of the same shape
		t.c = it.stmts[0]
	} else {
		parsed, ref := r.parse(sc, query)
		switch {
		case ref != nil:
			return fixed(r.unparsed(sc, query, ref)) // not cached: wrong statements are not worth it
		case len(parsed) > 1:
			return fixed(r.refusal(&Refusal{Code: "42601", Message: "cannot insert multiple commands into a prepared statement", Unread: true}))
		}
		t.c = r.compile(s, parsed[0].Facts)
		if len(sc.scan.Statements) == 1 {
			r.store(sc, s, &item{stmts: []*compiled{t.c}, cost: t.c.cost}, parsed[0].Facts.Structural, query)
		}
	}
	if t.c.always == nil && len(sc.scan.Literals) > 0 {
		t.text = append([]byte(nil), query...)
		t.lits = append([]sql.Literal(nil), sc.scan.Literals...)
	}
	sc.key = templateKey(sc.key[:0], s, query, paramOIDs)
	r.cache.put(&item{key: string(sc.key), template: t, cost: t.c.cost + int64(len(t.text)+16*len(t.lits)+4*len(t.oids)) + 100})
	return t
}

// Generic is the plan as far as it is known without values: its Kind and Flags; Shards are all that it may go to. For
// Parse and Describe, any one of them knows the statement. A Scan has its columns, not its values.
func (t *Template) Generic() *Plan { return t.c.generic }

// Fixed says that every Bind gives Generic itself: no value matters.
func (t *Template) Fixed() bool { return t.c.always != nil }

// Params are the types of the parameters of a statement that no server sees, for ParameterDescription: those that a ViewScan uses, and
// whatever the client has declared. A server knows better.
func (t *Template) Params() []uint32 {
	if t.c.scan == nil {
		return t.oids
	}
	out := append([]uint32(nil), t.c.scan.params...)
	for i, oid := range t.oids {
		if i >= len(out) {
			out = append(out, oid)
		} else if oid != 0 {
			out[i] = oid
		}
	}
	return out
}

// NumParams is how many parameters a Bind must have; -1 for statements that one server says it of.
func (t *Template) NumParams() int {
	switch t.c.generic.Kind {
	case Scatter, Broadcast, CopyIn:
	default:
		if t.c.keys == nil {
			return -1
		}
	}
	return t.TextParams()
}

// TextParams is how many parameters the statement has by its text, or by the types that were declared for it.
func (t *Template) TextParams() int { return max(t.c.params, len(t.oids)) }

// Bind is the plan for the values of a Bind message: values in order, nil for NULL; formats as in the message (none: all
// text, one: all alike, else one each). It allocates nothing when the plan is a matter of place. A value that cannot
// be read gives a plan of kind Refuse.
func (t *Template) Bind(values [][]byte, formats []int16) *Plan {
	if t.c.always != nil {
		return t.c.always
	}
	src := sources.Get().(*source)
	src.text, src.lits, src.values, src.formats, src.oids = t.text, t.lits, values, formats, t.oids
	p := t.c.bind(src)
	*src = source{} // keep no one's values
	sources.Put(src)
	return p
}

// sources saves Bind from allocating one each time.
var sources = sync.Pool{New: func() any { return new(source) }}
