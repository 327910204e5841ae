package backend

import (
	"slices"
	"strconv"
)

// Statements is what a server connection has prepared under a name: the bookkeeping only, bounded in bytes of statement
// text. The session sends the messages. A statement is known by an id that the proxy gives to each (text, parameter
// types) for the whole process, so a connection serves every client that prepared the same.
type Statements struct {
	limit int
	bytes int
	byID  map[uint64]*statement
	root  *statement // of the ring in order of use: root.next is the latest
	// before is what SetAside has returned, as long as it may come back.
	before *Statements
	// What an error discards is taken back first to last. So what counts for a statement is what comes first: kept are those
	// whose Close was skipped, gone those whose Parse was. Both until Settled.
	kept, gone []uint64
}

type statement struct {
	id         uint64
	name       string
	size       int
	left       bool // by an earlier batch, which was to close it and came to nothing: it is there already, until it is closed and prepared anew
	prev, next *statement
}

// StatementPrefix is what the names of statements on servers begin with; no error that a client gets has one in it.
const StatementPrefix = "tidemark_"

// StatementName is the name that the statement of that id has on every server connection.
func StatementName(id uint64) string { return StatementPrefix + strconv.FormatUint(id, 36) }

// statementOverhead is what a statement counts besides its text: the server keeps a plan for each.
const statementOverhead = 512

func newStatements(limit int) Statements { return Statements{limit: limit} }

// Name is the name under which the statement of that id is prepared here; it counts as used. It does not allocate.
func (s *Statements) Name(id uint64) (name string, ok bool) {
	st, ok := s.byID[id]
	if !ok {
		return "", false
	}
	st.unlink()
	s.pushFront(st)
	return st.name, true
}

// Evicted is a statement that had to make room.
type Evicted struct {
	Name string
	id   uint64
	size int
}

// Restore takes back what Add evicted: its Close did not reach the server, or was not looked at.
func (s *Statements) Restore(e Evicted) {
	if slices.Contains(s.gone, e.id) {
		return
	}
	if st, ok := s.byID[e.id]; ok {
		st.left = true
	} else {
		s.insert(&statement{id: e.id, name: e.Name, size: e.size})
	}
	s.kept = append(s.kept, e.id)
}

// Unclosed is for the statement of that id whose Close, ahead of the Parse that prepares it anew, was skipped.
func (s *Statements) Unclosed(id uint64) {
	if st, ok := s.byID[id]; ok && st.left {
		s.kept = append(s.kept, id)
	}
}

// Unparsed forgets a statement whose Parse failed or was skipped.
func (s *Statements) Unparsed(id uint64) {
	if !slices.Contains(s.kept, id) {
		s.Remove(id)
		s.gone = append(s.gone, id)
	}
}

// Settled ends what an error has discarded.
func (s *Statements) Settled() { s.kept, s.gone = s.kept[:0], s.gone[:0] }

// Add records a statement whose Parse is about to be sent under the returned name. size is its text in bytes. To stay
// within the bound, the statements least recently used are appended to evicted: their Close must be sent before the Parse.
func (s *Statements) Add(id uint64, size int, evicted []Evicted) (name string, _ []Evicted) {
	if name, ok := s.Name(id); ok {
		return name, evicted
	}
	st := &statement{id: id, name: StatementName(id), size: size + statementOverhead}
	for s.bytes+st.size > s.limit && len(s.byID) > 0 {
		last := s.root.prev
		evicted = append(evicted, Evicted{last.name, last.id, last.size})
		s.drop(last)
	}
	s.insert(st)
	return st.name, evicted
}

func (s *Statements) insert(st *statement) {
	if s.byID == nil {
		s.byID = map[uint64]*statement{}
		s.root = &statement{}
		s.root.prev, s.root.next = s.root, s.root
	}
	s.bytes += st.size
	s.byID[st.id] = st
	s.pushFront(st)
}

// Remove forgets a statement.
func (s *Statements) Remove(id uint64) {
	if st, ok := s.byID[id]; ok {
		s.drop(st)
	}
	if s.before != nil {
		s.before.Remove(id)
	}
}

func (s *Statements) drop(st *statement) {
	st.unlink()
	delete(s.byID, st.id)
	s.bytes -= st.size
}

// Names appends the names of all that are prepared here.
func (s *Statements) Names(dst []string) []string {
	for _, st := range s.byID {
		dst = append(dst, st.name)
	}
	return dst
}

// SetAside begins anew, for what is about to close or deallocate all; TakeBack is for one that was skipped. What is removed until
// then is removed there too: a Parse sent before may have failed.
func (s *Statements) SetAside() *Statements {
	old := *s
	old.before = nil
	*s = Statements{limit: s.limit, before: &old}
	return &old
}

// TakeBack restores what SetAside has returned. What was added since stays: it may be of a later batch, which is not skipped.
func (s *Statements) TakeBack(old *Statements) {
	for id, st := range old.byID {
		s.Restore(Evicted{st.name, id, st.size})
	}
	if s.before == old {
		s.before = nil
	}
}

// Reset forgets all: DISCARD ALL or DEALLOCATE ALL ran.
func (s *Statements) Reset() { *s = Statements{limit: s.limit} }

// Len is the number of statements, Bytes what they count against the bound.
func (s *Statements) Len() int { return len(s.byID) }

// Bytes is the sum of their texts and overheads.
func (s *Statements) Bytes() int { return s.bytes }

func (s *Statements) pushFront(st *statement) {
	st.prev, st.next = s.root, s.root.next
	st.prev.next, st.next.prev = st, st
}

func (st *statement) unlink() {
	st.prev.next, st.next.prev = st.next, st.prev
}
