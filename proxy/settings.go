package proxy

import (
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// settings are the run-time settings that a session has set, as it has them: a server connection is given them before
// the session uses it, and only if it was left with others (compare print).
//
// Inside a transaction changes go to a log on top, which a rollback drops and a commit merges, as PostgreSQL does; a
// savepoint is a position in the log.
type settings struct {
	base       map[string]string // name -> value as set_config() takes it
	start      map[string]string // ... of the startup message, to which RESET returns
	startPrint uint64            // of start
	sql        string            // SELECTs that make them; empty for none
	print      uint64            // of sql: equal prints mean equal settings; 0 for none
	log        []change
	// serializable: transactions are by default.
	serializable bool
	resets       uint32 // of all settings, so far
	// recoded: client_encoding has become another one, and values are there whose bytes are in the one before. The server tells
	// them anew, see learn.go.
	recoded bool
}

type change struct {
	name, value string
	reset       bool // RESET name, or RESET ALL when name is empty
	local       bool
	spared      []string // by a RESET ALL, see localDefaults
	savepoint   string   // not a change, but a savepoint of that name
}

// startup takes the settings of the startup message. client_encoding and the like come as the client wrote them.
func (s *settings) startup(params []wire.Parameter) {
	if len(params) == 0 {
		return // no maps for a session that sets nothing
	}
	s.base, s.start = map[string]string{}, map[string]string{}
	for _, p := range params {
		if name := sql.Lower(p.Name); name != router.Seed { // which PostgreSQL ignores there
			s.start[name] = p.Value
		}
	}
	maps.Copy(s.base, s.start)
	s.fingerprint()
	s.startPrint = s.print
}

// apply records a SET or RESET that a server accepted.
func (s *settings) apply(c *router.SettingChange, inTx bool) {
	if passing(c.Name) {
		return
	}
	x := change{name: c.Name, local: c.Local}
	switch c.Op {
	case router.SetOp:
		x.value = raw(c)
	case router.ResetOp:
		x.reset = true
	case router.ResetAll:
		x.name, x.reset, x.spared = "", true, s.localDefaults()
	default:
		return
	}
	if inTx {
		s.log = append(s.log, x)
		return
	}
	if !c.Local {
		s.merge(x)
		s.fingerprint()
	}
}

// localDefaults are the settings that the open transaction has taken back to their defaults for itself alone, by SET LOCAL name TO
// DEFAULT or set_config(name, NULL, true). RESET ALL leaves out what has its default (ResetAllOptions of guc.c), so that behind the
// transaction they are what they were before.
func (s *settings) localDefaults() (names []string) {
	for i := range s.log {
		x := &s.log[i]
		if x.savepoint != "" || x.name == "" && x.reset {
			continue // a RESET ALL that came in between has left them, too
		}
		names = slices.DeleteFunc(names, func(name string) bool { return name == x.name })
		if x.reset && x.local {
			names = append(names, x.name)
		}
	}
	return names
}

// passing says whether a setting is not one of the session: the transaction's own, gone at its end, or the seed, which is said once.
func passing(name string) bool {
	return name == router.Seed || name == "transaction_isolation" || name == "transaction_read_only" || name == "transaction_deferrable"
}

// maxSettingBytes bounds the names and values of a session's settings; what a transaction has set counts each time.
const maxSettingBytes = 1 << 20

// crowded is the error for more changes than a session may keep, or nil.
func (s *settings) crowded(changes []*router.SettingChange) error {
	if len(changes) == 0 {
		return nil
	}
	bytes, more := 0, 0
	for _, c := range changes {
		if c.Op == router.SetOp {
			more += len(c.Name) + len(c.Value())
		}
	}
	for name, v := range s.base {
		bytes += len(name) + len(v)
	}
	for i := range s.log {
		bytes += len(s.log[i].name) + len(s.log[i].value)
	}
	if more == 0 || bytes+more <= maxSettingBytes {
		return nil
	}
	return wire.Errorf(wire.ProgramLimitExceeded, "too many settings: %d bytes", bytes+more).
		WithDetail("A session can keep %d bytes of names and values.", maxSettingBytes).
		WithHint("RESET those that are not used any more, or keep the data in a table.")
}

func (s *settings) merge(x change) {
	if before := s.base["client_encoding"]; len(s.base) > 0 {
		defer func() { s.recoded = s.recoded || s.base["client_encoding"] != before && !asciiValues(s.base) }()
	}
	switch {
	case x.reset && x.name == "":
		s.resets++
		for name := range s.base {
			if inResetAll(name) && !slices.Contains(x.spared, name) {
				delete(s.base, name)
			}
		}
		for name, v := range s.start {
			if inResetAll(name) && !slices.Contains(x.spared, name) {
				s.base[name] = v
			}
		}
	case x.reset:
		s.undo(x.name)
	default:
		if s.base == nil {
			s.base = map[string]string{}
		}
		s.base[x.name] = x.value
	}
	switch { // it resets the role, or sets it to none
	case x.name != "session_authorization":
	case x.reset:
		s.undo("role")
	default:
		delete(s.base, "role")
	}
}

func asciiValues(values map[string]string) bool {
	for _, v := range values {
		if !asciiOnly(v) {
			return false
		}
	}
	return true
}

// asciiOnly says whether a value is the same in every encoding.
func asciiOnly(v string) bool {
	for i := range len(v) {
		if v[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// inResetAll says whether RESET ALL is about a setting.
func inResetAll(name string) bool { return name != "role" && name != "session_authorization" }

// put sets a value that a server is known to have.
func (s *settings) put(name, value string) {
	if s.base == nil {
		s.base = map[string]string{}
	}
	s.base[name] = value
}

// undo takes a setting back to what the session began with. It says whether that is what a server that ran RESET has too.
func (s *settings) undo(name string) bool {
	delete(s.base, name)
	v, ok := s.start[name]
	if ok {
		s.base[name] = v
	}
	return !ok
}

// savepoint, rollbackTo, release and end follow the transaction.
func (s *settings) savepoint(name string) { s.log = append(s.log, change{savepoint: name}) }

// divided says whether the transaction has a savepoint.
func (s *settings) divided() bool {
	return slices.ContainsFunc(s.log, func(x change) bool { return x.savepoint != "" })
}

func (s *settings) rollbackTo(name string) {
	for i := len(s.log) - 1; i >= 0; i-- {
		if s.log[i].savepoint == name {
			s.log = s.log[:i+1]
			return
		}
	}
	s.log = s.log[:0] // it was made before anything was set, and before any server heard of the transaction
}

func (s *settings) release(name string) {
	from := len(s.log) - 1
	for from >= 0 && s.log[from].savepoint != name {
		from--
	}
	from = max(from, 0)
	s.log = s.log[:from+len(slices.DeleteFunc(s.log[from:], func(x change) bool { return x.savepoint != "" }))]
}

// end closes the transaction. It says whether the settings changed.
func (s *settings) end(committed bool) bool {
	log := s.log
	s.log = s.log[:0]
	if !committed {
		return false
	}
	changed := false
	for _, x := range log {
		if x.savepoint == "" && !x.local {
			s.merge(x)
			changed = true
		}
	}
	if changed {
		s.fingerprint()
	}
	return changed
}

// discard forgets everything: DISCARD ALL.
func (s *settings) discard() {
	s.resets++
	clear(s.base)
	maps.Copy(s.base, s.start)
	s.fingerprint()
}

// touched says whether the open transaction changed settings.
func (s *settings) touched() bool {
	for _, x := range s.log {
		if x.savepoint == "" {
			return true
		}
	}
	return false
}

// value is a setting's value, and whether the session has set it.
func (s *settings) value(name string) (string, bool) {
	for i := len(s.log) - 1; i >= 0; i-- {
		x := s.log[i]
		switch {
		case x.savepoint != "":
			continue
		case x.name == "session_authorization" && name == "role":
			if !x.reset {
				return "none", true
			}
		case x.name != name && (x.name != "" || !inResetAll(name) || slices.Contains(x.spared, name)):
			continue
		}
		if x.reset {
			v, ok := s.start[name]
			return v, ok
		}
		return x.value, true
	}
	v, ok := s.base[name]
	return v, ok
}

// ahead is a copy, to follow what has been sent and is not answered.
func (s *settings) ahead() *settings {
	return &settings{base: maps.Clone(s.base), start: s.start, log: slices.Clone(s.log)}
}

// expect follows a statement that will have run.
func (s *settings) expect(p *router.Plan) {
	for c := p.Setting; c != nil; c = c.Next {
		s.apply(c, true)
	}
	if p.Kind != router.Tx {
		return
	}
	switch p.Tx.Op {
	case router.Commit, router.Rollback:
		s.end(p.Tx.Op == router.Commit)
	case router.Savepoint:
		s.savepoint(p.Tx.Name)
	case router.RollbackTo:
		s.rollbackTo(p.Tx.Name)
	case router.Release:
		s.release(p.Tx.Name)
	}
}
