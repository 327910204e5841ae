package router

import (
	"errors"

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

// MaxStatementBytes is the longest query string that is planned; a longer one is refused with SQLSTATE 54000.
const MaxStatementBytes = 64 << 20

// CostlyBytes is the length of a query string from which parsing it takes long enough to disturb a loop.
const CostlyBytes = 4 << 10

// Costly says whether planning a query string of n bytes that is not cached should happen off the loop.
func Costly(n int) bool { return n >= CostlyBytes }

// Router plans statements for one database, one version of its map and one state of its catalog. It is safe for
// concurrent use. When map or catalog change, make a new one; the cache starts empty.
type Router struct {
	m   *sharding.Map
	cat *Catalog
}

// New makes a router.
func New(c Config) (*Router, error) {
	if c.Map == nil {
		return nil, errors.New("router: no shard map")
	}
	return &Router{m: c.Map, cat: c.Catalog}, nil
}

// Map is the shard map that the plans' shard indices refer to.
func (r *Router) Map() *sharding.Map { return r.m }

// Session is the part of a session's state that changes what a statement means. It is immutable: make a new one when
// one of its settings changes. Sessions with equal settings share cached plans.
type Session struct {
	key string
}

// NewSession takes the session's user, its search_path as SHOW prints it ("" or `"$user", public` is the default), its
// client_encoding, and standard_conforming_strings. It fails for settings under which SQL cannot be read safely:
// encodings whose second bytes look like quotes (SJIS, BIG5, GBK, GB18030, UHC, JOHAB, SHIFT_JIS_2004), and
// standard_conforming_strings = off. The error is a *Refusal.
func NewSession(user, searchPath, clientEncoding string, conformingStrings bool) (*Session, error) {
	return &Session{}, nil
}

// Scratch is memory that planning reuses: one per session (or task), used by one goroutine at a time. The zero value
// is ready. Statements returned from a call are valid until the next call with the same Scratch.
type Scratch struct {
	stmts []Statement
}

// Statement is one statement of a simple query with its plan.
type Statement struct {
	Plan       *Plan
	Start, End int // the statement's bytes in the query string, without the semicolon
}

// Cached plans a simple query if all that it needs is in the cache. It never parses; on a hit it allocates nothing for
// statements whose plan is a matter of place. ok is false when Plan must be asked.
func (r *Router) Cached(sc *Scratch, s *Session, query []byte) (stmts []Statement, ok bool) {
	return nil, false
}

// Plan plans a simple query, which may hold several statements. An empty one has one statement of kind Nothing. A
// query that cannot be parsed has one statement, of kind Refuse, for all of it: PostgreSQL runs nothing of it either.
// Plan parses on a miss, which takes tens of microseconds for each kilobyte: see Costly.
func (r *Router) Plan(sc *Scratch, s *Session, query []byte) []Statement {
	return nil
}

// CachedTemplate finds the template of a Parse message if it is in the cache; it never parses.
func (r *Router) CachedTemplate(sc *Scratch, s *Session, query []byte, paramOIDs []uint32) (*Template, bool) {
	return nil, false
}

// Template plans a Parse message: a single statement with parameters. paramOIDs are those of the message; 0 or a
// missing one is unspecified. Errors are found in Template.Generic, whose kind is then Refuse. query and paramOIDs may
// be reused after the call.
func (r *Router) Template(sc *Scratch, s *Session, query []byte, paramOIDs []uint32) *Template {
	return nil
}

// Template is a parsed statement without the values of its parameters. It is immutable and shared between sessions.
type Template struct {
	generic *Plan
	fixed   bool
	params  []uint32
}

// Generic is the plan as far as it is known without values: its Kind and Flags; Shards are all that it may go to. For
// Parse and Describe, any one of them knows the statement. A Scan has its columns, not its values.
func (t *Template) Generic() *Plan { return t.generic }

// Fixed says that every Bind gives Generic itself: no value matters.
func (t *Template) Fixed() bool { return t.fixed }

// Params are the types of the parameters of a ViewScan, for ParameterDescription. nil for other kinds: the server knows.
func (t *Template) Params() []uint32 { return t.params }

// Bind is the plan for the values of a Bind message: values in order, nil for NULL; formats as in the message (none: all
// text, one: all alike, else one each). It allocates nothing when the plan is a matter of place. A value that cannot
// be read gives a plan of kind Refuse.
func (t *Template) Bind(values [][]byte, formats []int16) *Plan {
	return nil
}
