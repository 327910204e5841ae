package router

import (
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/sharding"
)

// statement is what planning knows of one statement: its facts, with every relation found.
type statement struct {
	r    *Router
	ses  *Session
	f    *sql.Facts
	rels []relation
	// pins holds, for each relation, the key that confines its rows, nil when nothing does.
	pins  []*key
	edges []edge
	// byPath: another search_path would have some of its names mean something else.
	byPath bool
}

// edge says that rows of relation to are needed only where its key equals the key of relation from.
type edge struct{ to, from int }

// key is a shard key as a statement gives it: the rows that matter have one of these values.
type key struct {
	rel    string // the table, for messages
	column string
	typ    sharding.KeyType
	max    int // characters that the column takes, 0: any number; for values that are stored
	stored bool
	values []sql.Value
}

func (r *Router) statement(ses *Session, f *sql.Facts) *statement {
	s := &statement{r: r, ses: ses, f: f, rels: make([]relation, len(f.Relations)), pins: make([]*key, len(f.Relations))}
	for i, rel := range f.Relations {
		s.rels[i] = r.find(ses, rel)
		way := s.way(&s.rels[i])
		s.rels[i].does = r.code.relation(ses, s.rels[i].name, way)
		if rel.Schema == "" && len(s.all()) == 1 { // where there are several a change of search_path that is not known yet is refused
			s.rels[i].does.leaves |= r.code.named[ses.fold(rel.Name)][way].leaves
		}
	}
	s.byPath = s.namesByPath()
	s.pin()
	return s
}

// pin finds what confines each sharded relation: equalities with constants, those of INSERTs, and equalities between
// keys, along which a pin travels.
func (s *statement) pin() {
	for _, e := range s.f.Equals {
		for _, left := range s.resolve(e.Left) {
			if e.Right[0].Kind != sql.ColumnOf {
				s.pinTo(left, e)
				continue
			}
			for _, right := range s.resolve(e.Right[0].Ref) {
				s.tie(left, right, e.Restricts)
			}
		}
		if e.Right[0].Kind == sql.ColumnOf {
			continue
		}
	}
	for _, w := range s.f.Writes {
		if w.Command == sql.Insert && s.rels[w.Relation].place == split {
			s.pinInsert(w)
		}
	}
	for changed := true; changed; {
		changed = false
		for _, e := range s.edges {
			if s.pins[e.to] == nil && s.pins[e.from] != nil && !s.pins[e.from].stored {
				s.pins[e.to] = s.pins[e.from]
				changed = true
			}
		}
	}
}

// resolve finds the sharded relations whose key a column reference means. There can be several: USING merges columns,
// and in every other case of several PostgreSQL calls the reference ambiguous.
func (s *statement) resolve(c sql.Column) (rels []int) {
	for block := c.Block; block >= 0 && block < len(s.f.Blocks); {
		b := s.f.Blocks[block]
		certain := !b.Opaque // whether this block is known not to have the column
		for i := range s.rels {
			rel := &s.rels[i]
			if rel.Block != block || rel.NotQuery {
				continue
			}
			if c.Table != "" {
				if rel.Alias != c.Table || c.Schema != "" && (rel.Relation.Name != c.Table || rel.name.Schema != c.Schema) {
					continue
				}
				certain = false // found, or hidden by another of that name
				if s.isKey(rel, c.Name) {
					rels = append(rels, i)
				}
				continue
			}
			if rel.Renamed {
				certain = false
				continue
			}
			has, known := rel.has(c.Name)
			if has || !known {
				certain = false
			}
			if s.isKey(rel, c.Name) {
				rels = append(rels, i)
			}
		}
		if len(rels) > 0 || c.Table == "" && !certain {
			return rels
		}
		if c.Table != "" && !certain && !b.Opaque {
			return rels
		}
		if c.Table != "" && b.Opaque {
			return nil // a subquery of that name may hide the outer table
		}
		if !b.Visible {
			return nil
		}
		block = b.Parent
	}
	return nil
}

func (s *statement) isKey(rel *relation, column string) bool {
	return rel.place == split && !rel.Renamed && rel.table.Column == column
}

func within(list []int, i int) bool {
	for _, x := range list {
		if x == i {
			return true
		}
	}
	return false
}

func (s *statement) pinTo(rel int, e sql.Equal) {
	if !within(e.Restricts, rel) {
		return
	}
	// A single value beats a list; between two single values any is right, for both must hold.
	if old := s.pins[rel]; old != nil && len(old.values) <= len(e.Right) {
		return
	}
	t := s.rels[rel].table
	s.pins[rel] = &key{rel: s.rels[rel].name.String(), column: t.Column, typ: t.Type, values: e.Right}
}

func (s *statement) tie(a, b int, restricts []int) {
	if a == b || !alike(s.rels[a].table.Type, s.rels[b].table.Type) {
		return
	}
	if within(restricts, a) {
		s.edges = append(s.edges, edge{to: a, from: b})
	}
	if within(restricts, b) {
		s.edges = append(s.edges, edge{to: b, from: a})
	}
}

// alike says whether equal values of two types hash alike.
func alike(a, b sharding.KeyType) bool {
	integer := func(t sharding.KeyType) bool { return t == sharding.Int2 || t == sharding.Int4 || t == sharding.Int8 }
	return a == b || integer(a) && integer(b)
}

// pinInsert takes the key from each row. What makes that impossible is found again by insertProblem.
func (s *statement) pinInsert(w sql.Write) {
	rel := &s.rels[w.Relation]
	at := s.keyPosition(w)
	if at < 0 || len(w.Rows) == 0 || w.Star {
		return
	}
	k := &key{rel: rel.name.String(), column: rel.table.Column, typ: rel.table.Type, stored: true}
	if rel.key != nil && rel.key.TypeMod > 4 && (rel.table.Type == sharding.Text || rel.table.Type == sharding.BPChar) {
		k.max = int(rel.key.TypeMod) - 4 // VARHDRSZ
	}
	for _, row := range w.Rows {
		if at >= len(row) {
			return
		}
		v := row[at]
		switch v.Kind {
		case sql.Lit, sql.Param, sql.Fixed, sql.Null:
			k.values = append(k.values, v)
		case sql.ColumnOf:
			// INSERT ... SELECT of a key: the row stays where it came from.
			for _, from := range s.resolve(v.Ref) {
				if alike(s.rels[from].table.Type, rel.table.Type) {
					s.edges = append(s.edges, edge{to: w.Relation, from: from})
				}
			}
			return
		default:
			return
		}
	}
	s.pins[w.Relation] = k
}

// keyPosition is where in an INSERT's rows the key stands; -1 when it is not there or not known.
func (s *statement) keyPosition(w sql.Write) int {
	rel := &s.rels[w.Relation]
	if len(w.Columns) > 0 {
		for i, c := range w.Columns {
			if c == rel.table.Column {
				return i
			}
		}
		return -1
	}
	for i, c := range rel.columns {
		if c.Name == rel.table.Column {
			return i
		}
	}
	return -1
}
