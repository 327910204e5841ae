package engine

import (
	"strings"
	"unicode/utf8"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// Names says what an error must be told with in place of what the server says: its names of prepared statements are the
// proxy's own, and positions are those of the text that it was given. It is shared by many requests, and immutable.
type Names struct {
	Client string            // the client's name of any statement that is not in Of
	Of     map[string]string // by name on the server
	Shifts []Shift           // in the order of At
	// Executed are what EXECUTEs in the text execute, in the order of Statement.
	Executed []Executed
	// Retell changes the error into what the client is told in its place, before anything else is; nil for most.
	Retell func(*wire.Error)
}

// Shift says that the client's text differs in length by By characters (client's minus server's) from the server's
// position At on, counted from 1.
type Shift struct{ At, By int }

// Executed is what statement number Statement of the text, counted from 0, executes. Its own errors have the positions of its
// own text.
type Executed struct {
	Statement int
	Names     *Names
	Args      Args // of the EXECUTE: errors may be about these
}

// Args are the values that an EXECUTE gives, as far as errors may be about them.
type Args uint8

// The kinds of Args.
const (
	NoArgs Args = iota // or such as nobody looks at
	Constants
	Expressions
)

// is says whether an error with a position is about what is executed. PostgreSQL does not tell, but for the routine that raised it:
// only one of the two can name tables, only EXPLAIN has options, and constants call no functions.
func (x *Executed) is(e *wire.Error) bool {
	switch e.Routine {
	case "parserOpenTable":
		return true
	case "ParseExplainOptionList", "ExplainQuery":
		return false
	case "ParseFuncOrColumn", "op_error":
		return x.Args != Expressions
	}
	return x.Args == NoArgs
}

// tell changes what the server said of statement number at, counted from 0, into what the client is told. It reports whether
// anything was changed.
func (n *Names) tell(e *wire.Error, at int) (changed bool) {
	if n.Retell != nil {
		n.Retell(e)
		changed = true
	}
	for _, text := range []*string{&e.Message, &e.Detail, &e.Hint, &e.Where} {
		if t := n.rename(*text); t != *text {
			*text, changed = t, true
		}
	}
	if e.Position > 0 {
		by, shifts := 0, n.Shifts
		for i := range n.Executed {
			if x := &n.Executed[i]; x.Statement == at && x.is(e) {
				shifts = x.Names.Shifts
			}
		}
		for _, s := range shifts {
			if e.Position >= s.At {
				by = s.By
			}
		}
		if by != 0 {
			e.Position = max(1, e.Position+by)
			changed = true
		}
	}
	return changed
}

// rename puts the client's names in the place of the proxy's.
func (n *Names) rename(s string) string {
	for from := 0; ; {
		i := strings.Index(s[from:], backend.StatementPrefix)
		if i < 0 {
			return s
		}
		i += from
		end := i + len(backend.StatementPrefix)
		for end < len(s) && (s[end] >= '0' && s[end] <= '9' || s[end] >= 'a' && s[end] <= 'z') {
			end++
		}
		name, ok := n.Of[s[i:end]]
		if !ok {
			name = n.Client
		}
		s = s[:i] + name + s[end:]
		from = i + len(name)
	}
}

// Characters is the length of a text as positions count it.
func Characters(s string) int { return utf8.RuneCountInString(s) }
