package sql

import (
	"errors"
	"fmt"
	"math"
	"sort"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v6"
	"github.com/pganalyze/pg_query_go/v6/parser"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// SyntaxError is the parser's error.
type SyntaxError struct {
	Message  string
	Position int // in characters from 1, 0 when unknown
}

func (e *SyntaxError) Error() string { return e.Message }

// Parsed is one statement of a parsed query string.
type Parsed struct {
	Facts      *Facts
	Start, End int // its bytes in the text
}

// Parse reads a query string into the facts of its statements. It costs tens of microseconds for each kilobyte. s must
// have scanned the same text; nil when the text cannot be scanned, which leaves only the error. Names and values in the facts
// are the text's own bytes, whatever their encoding. Errors are *SyntaxError and *TooComplexError.
func Parse(text []byte, s *Scanner) ([]Parsed, error) {
	if err := tooComplex(text); err != nil {
		return nil, err
	}
	var tree *pg.ParseResult
	var err error
	whole := true
	if s != nil {
		if short := shorten(text, s.Literals); short != nil {
			tree, err = parse(short.text)
			if err != nil {
				var se *SyntaxError
				if errors.As(err, &se) {
					se.Message, se.Position = short.message(se.Message), short.position(se.Position)
				}
				return nil, err
			}
			whole = !short.restore(tree)
		}
	}
	if whole {
		tree, err = parse(text)
	}
	if s == nil {
		return nil, malformed(text, err)
	}
	if err != nil {
		return nil, err
	}
	var out []Parsed
	for i, raw := range tree.Stmts {
		b := &builder{text: text, lits: s.Literals}
		start, end := int(raw.StmtLocation), int(raw.StmtLocation)+int(raw.StmtLen)
		if raw.StmtLen == 0 {
			end = len(text)
		}
		if len(tree.Stmts) == len(s.Statements) {
			span := s.Statements[i]
			start, end, b.kept = span.Start, span.End, span.First == span.After
		} else if len(tree.Stmts) == 1 {
			start, end = s.Statements[0].Start, s.Statements[len(s.Statements)-1].End
		}
		b.own = text[start:end]
		f := b.statement(raw.Stmt)
		out = append(out, Parsed{f, start, end})
	}
	return out, nil
}

// malformed is the error of a text that cannot be scanned; the parser has said err of it. It lets pass letters behind a parameter, which
// PostgreSQL does not.
func malformed(text []byte, err error) error {
	var s Scanner
	s.Scan(text)
	at := Characters(text, s.junk.Start)
	if s.junk.End == 0 {
		at = math.MaxInt
	}
	var se *SyntaxError
	switch {
	case err != nil && (!errors.As(err, &se) || se.Position < at):
		return err
	case s.junk.End == 0:
		return &SyntaxError{Message: "a token of the statement is malformed"}
	}
	return &SyntaxError{fmt.Sprintf("trailing junk after parameter at or near \"%s\"", text[s.junk.Start:s.junk.End]), at}
}

// parse is the parser's tree of a text in any encoding.
func parse(text []byte) (*pg.ParseResult, error) {
	var wide *widened
	str := string(text)
	if !utf8.ValidString(str) {
		wide = widen(text)
		str = wide.text
	}
	tree, err := pg.Parse(str)
	if err != nil {
		var pe *parser.Error
		if errors.As(err, &pe) {
			if wide != nil {
				pe.Message = bytesOf(pe.Message)
			}
			return nil, &SyntaxError{pe.Message, pe.Cursorpos}
		}
		return nil, &TooComplexError{"stack depth limit exceeded"} // the tree is too deep for what carries it from C to Go
	}
	if wide != nil {
		wide.narrow(tree)
	}
	return tree, nil
}

// Characters is the position of a byte offset in characters from 1, as error positions count.
func Characters(text []byte, offset int) int {
	return utf8.RuneCount(text[:min(offset, len(text))]) + 1
}

// builder gathers the facts of one statement.
type builder struct {
	text []byte
	own  []byte // the statement's part of it
	lits []Literal
	f    *Facts
	kept bool // no literal of the statement was replaced: all are part of its shape
	// within is the nesting of subqueries, bounded so that no statement can exhaust the stack.
	within int
}

// scope is where an expression stands: its block, and the WITH queries that its tables may mean.
type scope struct {
	block int
	ctes  *cte
}

type cte struct {
	name string
	next *cte
}

func (c *cte) has(name string) bool {
	for ; c != nil; c = c.next {
		if c.name == name {
			return true
		}
	}
	return false
}

func (b *builder) statement(n *pg.Node) *Facts {
	b.f = &Facts{node: n, b: b}
	b.top(n)
	sort.Ints(b.f.Structural)
	return b.f
}

func (b *builder) unusual(format string, args ...any) {
	if b.f.Unusual == "" {
		b.f.Unusual = fmt.Sprintf(format, args...)
	}
}

// oneServer is for what a single shard's server may well run: what the facts say of the statement is true, and not enough for several.
func (b *builder) oneServer(format string, args ...any) {
	if b.f.OneServer == "" {
		b.f.OneServer = fmt.Sprintf(format, args...)
	}
}

func (b *builder) block(parent int, visible bool) int {
	b.f.Blocks = append(b.f.Blocks, Block{Parent: parent, Visible: visible})
	return len(b.f.Blocks) - 1
}

// children calls visit for each node directly below a message, whatever its type. It is the way through every kind of
// node that this package does not know by name, so that no function call or subquery escapes it.
func children(m protoreflect.Message, visit func(*pg.Node)) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Kind() != protoreflect.MessageKind {
			return true
		}
		each := func(m protoreflect.Message) {
			if n, ok := m.Interface().(*pg.Node); ok {
				visit(n)
				return
			}
			if s, ok := m.Interface().(*pg.SelectStmt); ok {
				visit(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: s}})
				return
			}
			children(m, visit)
		}
		if fd.IsList() {
			for i := range v.List().Len() {
				each(v.List().Get(i).Message())
			}
			return true
		}
		each(v.Message())
		return true
	})
}
