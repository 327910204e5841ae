package router

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/sharding"
)

// Config is what a Router is made of.
type Config struct {
	Map     *sharding.Map
	Catalog *Catalog // nil: nothing is known; every function is volatile, and column types are the map's
	// CacheBytes bounds the plan cache, everything that it holds included. 0 means DefaultCacheBytes.
	CacheBytes int64
}

// DefaultCacheBytes is the plan cache's size when none is configured.
const DefaultCacheBytes = 64 << 20

// MaxShapeBytes bounds a query string without its literals; a longer one is refused with SQLSTATE 54000. Parsing takes a
// few hundred times as much memory.
const MaxShapeBytes = 1 << 20

// CostlyBytes is the length of a query string from which parsing it takes long enough to disturb a loop.
const CostlyBytes = 4 << 10

// Costly says whether planning a query string of n bytes that is not cached should happen off the loop.
func Costly(n int) bool { return n >= CostlyBytes }

// Router plans statements for one database, one version of its map and one state of its catalog. It is safe for
// concurrent use. When map or catalog change, make a new one; the cache starts empty.
type Router struct {
	m          *sharding.Map
	names      *names
	cache      *cache
	everyShard []int
	oneShard   [][]int // by shard
	nothing    *Plan
	schemas    map[string][]string // by the names in them, see homes
	code       code
	paths      []Path
}

// New makes a router.
func New(c Config) (*Router, error) {
	if c.Map == nil {
		return nil, errors.New("router: no shard map")
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = DefaultCacheBytes
	}
	r := &Router{m: c.Map, names: index(c.Catalog), cache: newCache(c.CacheBytes)}
	for i := range c.Map.Shards() {
		r.everyShard = append(r.everyShard, i)
		r.oneShard = append(r.oneShard, []int{i})
	}
	// The default shard is asked first where any would do.
	d := c.Map.Default()
	r.everyShard[0], r.everyShard[d] = r.everyShard[d], r.everyShard[0]
	if c.Catalog != nil {
		r.paths = c.Catalog.Paths
	}
	r.follow(c.Catalog)
	r.schemas = r.homes()
	r.nothing = &Plan{Kind: Nothing, Command: sql.Empty, Access: Read, Flags: Here, shards: c.Map}
	return r, nil
}

// Map is the shard map that the plans' shard indices refer to.
func (r *Router) Map() *sharding.Map { return r.m }

// Scratch is memory that planning reuses: one per session (or task), used by one goroutine at a time. The zero value
// is ready. Statements returned from a call are valid until the next call with the same Scratch.
type Scratch struct {
	scan  sql.Scanner
	key   []byte
	src   source
	stmts []Statement
	// recent is what was found of late, in the cache of router of: many clients send the same statements again and again.
	recent [16]*item
	of     *Router
}

// read scans a query string, as far as it can be planned.
func (sc *Scratch) read(query []byte) bool {
	sc.scan.Limit = MaxShapeBytes
	return sc.scan.Scan(query)
}

// Large says that a long statement, or the buffer that it came in, has left much memory in it, which nobody should keep.
func (sc *Scratch) Large() bool {
	return cap(sc.src.text)+cap(sc.key)+cap(sc.scan.Shape)+16*cap(sc.scan.Literals) > 256<<10
}

// Statement is one statement of a simple query with its plan.
type Statement struct {
	Plan       *Plan
	Start, End int // the statement's bytes in the query string, without the semicolon
}

// Cached plans a simple query if all that it needs is in the cache. It never parses; on a hit it allocates nothing for
// statements whose plan is a matter of place. ok is false when Plan must be asked.
func (r *Router) Cached(sc *Scratch, s *Session, query []byte) (stmts []Statement, ok bool) {
	it := r.again(sc, s, query)
	if it == nil {
		if !sc.read(query) {
			return nil, false
		}
		if len(sc.scan.Statements) == 0 {
			return sc.single(r.nothing, len(query)), true
		}
		if it = r.lookup(sc, s, query); it == nil {
			return nil, false
		}
		r.remember(sc, it, query)
	}
	sc.stmts = sc.stmts[:0]
	src := &sc.src
	src.text, src.lits, src.values, src.formats, src.oids = query, sc.scan.Literals, nil, nil, nil
	for i, c := range it.stmts {
		span := sc.scan.Statements[i]
		sc.stmts = append(sc.stmts, Statement{c.bind(src), span.Start, span.End})
	}
	return sc.stmts, true
}

func (sc *Scratch) single(p *Plan, end int) []Statement {
	sc.stmts = append(sc.stmts[:0], Statement{Plan: p, End: end})
	return sc.stmts
}

// lookup finds what is known of the shape that was just scanned. The key is left in sc.
func (r *Router) lookup(sc *Scratch, s *Session, query []byte) *item {
	sc.key = append(append(append(sc.key[:0], 'S'), s.key...), sc.scan.Shape...)
	it := r.cache.get(sc.key)
	if it != nil && it.structural != nil {
		sc.key = structuralKey(sc.key, it.structural, sc.scan.Literals, query)
		it = r.cache.get(sc.key)
	}
	return it
}

// again finds what was found of late for a text that is written alike.
func (r *Router) again(sc *Scratch, s *Session, query []byte) *item {
	if sc.of != r {
		return nil
	}
	it := sc.recent[slot(query)]
	if it == nil || !sc.scan.Matches(&it.pattern, query) || it.key[1:len(it.key)-it.pattern.Len()] != s.key {
		return nil
	}
	it.use()
	return it
}

// remember is for again.
func (r *Router) remember(sc *Scratch, it *item, query []byte) {
	if sc.of != r {
		sc.of, sc.recent = r, [len(sc.recent)]*item{}
	}
	if it.pattern.Len() > 0 {
		sc.recent[slot(query)] = it
	}
}

// slot is a place among the recent items: by how the text begins, which is not a literal as a rule.
func slot(query []byte) int {
	const begin, prime = 24, 0x9E3779B97F4A7C15
	if len(query) < begin {
		return 0
	}
	h := binary.LittleEndian.Uint64(query)
	h = h*prime ^ binary.LittleEndian.Uint64(query[8:])
	h = h*prime ^ binary.LittleEndian.Uint64(query[16:])
	return int(h * prime >> 60)
}

// structuralKey adds the literals that decide the meaning to a shape's key.
func structuralKey(key []byte, structural []int, lits []sql.Literal, query []byte) []byte {
	for _, i := range structural {
		if i < len(lits) {
			raw := query[lits[i].Start:lits[i].End]
			key = append(binary.AppendUvarint(append(key, 0), uint64(len(raw))), raw...)
		}
	}
	return key
}

// Plan plans a simple query, which may hold several statements. An empty one has one statement of kind Nothing. A
// query that cannot be parsed has one statement, of kind Refuse, for all of it: PostgreSQL runs nothing of it either.
// Plan parses on a miss, which takes tens of microseconds for each kilobyte: see Costly.
func (r *Router) Plan(sc *Scratch, s *Session, query []byte) []Statement {
	if stmts, ok := r.Cached(sc, s, query); ok {
		return stmts
	}
	parsed, ref := r.parse(sc, query)
	if ref != nil {
		return sc.single(r.unparsed(sc, query, ref), len(query))
	}
	it := &item{}
	var structural []int
	for _, p := range parsed {
		c := r.compile(s, p.Facts)
		it.stmts = append(it.stmts, c)
		it.cost += c.cost
		structural = append(structural, p.Facts.Structural...)
	}
	if len(parsed) == len(sc.scan.Statements) { // else semicolons stand inside of a statement, and spans are not the scanner's
		r.store(sc, s, it, structural, query)
	}
	sc.stmts = sc.stmts[:0]
	src := &sc.src
	src.text, src.lits, src.values, src.formats, src.oids = query, sc.scan.Literals, nil, nil, nil
	for i, c := range it.stmts {
		sc.stmts = append(sc.stmts, Statement{c.bind(src), parsed[i].Start, parsed[i].End})
	}
	return sc.stmts
}

func (r *Router) refusal(ref *Refusal) *Plan {
	return &Plan{Kind: Refuse, Refusal: ref, shards: r.m}
}

// newer are the words with which statements begin whose grammar grows with PostgreSQL's versions, and that change neither the session
// nor its transaction. The flag is Schema where they may change that.
var newer = map[string]Flags{
	"alter": Schema, "create": Schema, "drop": Schema, "explain": Schema,
	"analyze": 0, "comment": 0, "delete": 0, "grant": 0, "insert": 0, "merge": 0, "reindex": 0, "revoke": 0, "security": 0, "select": 0,
	"table": 0, "truncate": 0, "update": 0, "vacuum": 0, "values": 0, "with": 0,
}

// unparsed is the plan of a query that the parser refuses. It knows the grammar of one version of PostgreSQL, and a server may be newer:
// where there is only one shard, that one judges, and whatever the statement may do is reckoned with.
func (r *Router) unparsed(sc *Scratch, query []byte, ref *Refusal) *Plan {
	flags, ok := newer[sql.FirstWord(query)]
	if !ok || ref.Code != "42601" || len(r.everyShard) > 1 || !sc.read(query) || len(sc.scan.Statements) != 1 && !sql.AtomicBody(query) {
		return r.refusal(ref)
	}
	return &Plan{Kind: Route, Flags: Writes | Dirty | flags, Shards: r.everyShard, shards: r.m, Refusal: ref, Reason: "it cannot be read, and there is one shard"}
}

// parse reads the query that sc has scanned, or failed to scan.
func (r *Router) parse(sc *Scratch, query []byte) ([]sql.Parsed, *Refusal) {
	scanned := &sc.scan
	if !sc.read(query) {
		scanned = nil
	} else if len(scanned.Shape) > MaxShapeBytes {
		return nil, &Refusal{
			Code: "54000", Message: fmt.Sprintf("statement is too long: at most %d bytes are planned, without literals", MaxShapeBytes),
			Hint: "Use COPY for bulk data, or fewer rows for each INSERT.", Unread: true,
		}
	}
	if scanned == nil && len(query) > MaxShapeBytes {
		return nil, &Refusal{Code: "54000", Message: "statement is too long and cannot be read", Unread: true}
	}
	parsed, err := sql.Parse(query, scanned)
	if err != nil {
		ref := &Refusal{Code: "42601", Message: err.Error(), Unread: true}
		var se *sql.SyntaxError
		if errors.As(err, &se) {
			ref.Position = se.Position
		}
		if errors.As(err, new(*sql.TooComplexError)) {
			ref.Code, ref.Hint = "54001", "Break the statement up: its expressions, subqueries or comments nest too deep to be parsed safely."
		}
		return nil, ref
	}
	if len(parsed) == 0 {
		return nil, &Refusal{Code: "42601", Message: "syntax error", Unread: true}
	}
	return parsed, nil
}

// store caches the statements of the shape that sc has scanned.
func (r *Router) store(sc *Scratch, s *Session, it *item, structural []int, query []byte) {
	sc.key = append(append(append(sc.key[:0], 'S'), s.key...), sc.scan.Shape...)
	if len(structural) > 0 {
		r.cache.put(&item{key: string(sc.key), structural: structural})
		if head := r.cache.get(sc.key); head != nil { // whoever was first has the order
			structural = head.structural
		}
		sc.key = structuralKey(sc.key, structural, sc.scan.Literals, query)
	}
	it.key = string(sc.key)
	if len(structural) == 0 {
		it.pattern = sc.scan.Pattern(it.key[1+len(s.key):])
		it.cost += int64(it.pattern.Size())
	}
	r.cache.put(it)
}
