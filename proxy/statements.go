package proxy

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
)

// registry gives each distinct (text, parameter types) that some client has prepared under a name one id, by which server
// connections know it: clients that prepare the same share what is prepared. An id lives as long as a client uses it.
type registry struct {
	last atomic.Uint64

	// schemas counts changes of the schema. A statement that somebody has prepared before the last one may have other columns
	// and types of parameters now, or none: who prepares it anew must hear of these, so it is not shared with those from before.
	schemas atomic.Uint64

	mu    sync.Mutex
	byKey map[string]*shared
}

type shared struct {
	key    string
	text   int // where the statement's text begins in key
	types  int // of parameters that clients gave
	id     uint64
	uses   int
	schema uint64 // registry.schemas when it was first prepared
	// inferred are the types of parameters that a server has found where the client gave none; nil: not known. See inferred.go.
	inferred atomic.Pointer[[]uint32]
}

// schemaChanges is called whenever the schema may be another one from now on, for somebody: a change is sent, so that its own
// transaction sees it; it is committed; or it is taken back.
func (r *registry) schemaChanges() { r.schemas.Add(1) }

// fresh is an id for an unnamed statement, which is never shared.
func (r *registry) fresh() uint64 { return r.last.Add(1) }

// take finds or makes the id of a statement and counts one more use; give takes a use back.
//
// A server connection plans a statement anew for whoever uses it with another search_path, but the types of its parameters
// stay what they were: so the session's view is part of what is shared, and so is how literals are read.
func (r *registry) take(view string, as *reading, sql []byte, oids []uint32, types string) *shared {
	b := make([]byte, 0, len(view)+len(types)+6+4*len(oids)+len(sql))
	b = append(append(append(append(b, view...), 0), types...), 0)
	if as != nil {
		for _, value := range as {
			b = append(append(b, value...), 0)
		}
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(oids)))
	for _, o := range oids {
		b = binary.BigEndian.AppendUint32(b, o)
	}
	at := len(b)
	key := string(append(b, sql...))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byKey == nil {
		r.byKey = map[string]*shared{}
	}
	x, schema := r.byKey[key], r.schemas.Load()
	if x == nil || x.schema != schema {
		x = &shared{key: key, text: at, types: len(oids), id: r.fresh(), schema: schema}
		r.byKey[key] = x
	}
	x.uses++
	return x
}

// own is an id that nobody shares.
func (r *registry) own() *shared { return &shared{id: r.fresh(), uses: 1} }

func (r *registry) give(x *shared) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if x.uses--; x.uses == 0 && r.byKey[x.key] == x {
		delete(r.byKey, x.key)
	}
}

// retire lets whoever prepares the statement of this id anew have a new one: servers refuse the old one, because a table
// has changed under it.
func (r *registry) retire(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, x := range r.byKey {
		if x.id == id {
			delete(r.byKey, key)
			return
		}
	}
}

// keep makes the statement the client's own under its name.
func (s *session) keep(st *statement) {
	if st.name != "" {
		if st.order == 0 {
			s.kept++
			st.order = s.kept
		}
		if st.shared == nil {
			s.read(st)
		}
		if s.blind || st.literals && s.coded { // what it means is not known, and so not who could share it
			st.shared = s.p.statements.own()
		} else {
			st.shared = s.p.statements.take(s.viewAhead().Key(), st.reading, st.sql, st.oids, st.types)
		}
		st.id = st.shared.id
		st.names = namesOf(st)
	}
	if s.stmts == nil {
		s.stmts = map[string]*statement{}
	}
	s.stmts[st.name] = st
}

// namesOf is how errors of a statement are told: positions of one made by PREPARE are those in the text of that.
func namesOf(st *statement) *engine.Names {
	n := &engine.Names{Client: st.name}
	if st.fromSQL == "" {
		return n
	}
	client := func(offset int) int { return st.ahead + engine.Characters(st.fromSQL[:offset]) }
	if st.types == "" {
		n.Shifts = []engine.Shift{{At: 1, By: client(st.offset)}}
		return n
	}
	whole := fmt.Sprintf(prepareTyped, backend.StatementName(st.id), st.types, "")
	types, text := engine.Characters(whole[:strings.IndexByte(whole, '(')+1]), engine.Characters(whole)
	n.Shifts = []engine.Shift{{At: types + 1, By: client(st.typesAt) - types}, {At: text + 1, By: client(st.offset) - text}}
	return n
}

// forget drops a named statement of the client.
func (s *session) forget(name string) {
	if st := s.stmts[name]; st != nil {
		delete(s.stmts, name)
		if st.shared != nil {
			s.p.statements.give(st.shared)
		}
	}
}

// aside are the session's prepared statements, and those of the connection in use, from when a DISCARD ALL or DEALLOCATE ALL is
// sent until it is known whether it ran: what comes behind it must not find them.
type aside struct {
	s     *session
	conn  *backend.Conn
	stmts map[string]*statement
	known *backend.Statements
	over  bool // restored or forgotten
}

func (s *session) setAside(l *engine.Link) *aside {
	x := &aside{s: s, conn: l.Conn, stmts: s.stmts, known: l.Conn.Statements.SetAside()}
	s.stmts = map[string]*statement{}
	if st := x.stmts[""]; st != nil { // which they leave
		delete(x.stmts, "")
		s.stmts[""] = st
	}
	return x
}

// restore takes it back. What came behind it did not run either, and takes back itself what it did to the session's statements.
func (x *aside) restore() {
	if x.over {
		return
	}
	x.over = true
	for name, st := range x.stmts {
		x.s.forget(name)
		if x.s.stmts == nil {
			x.s.stmts = map[string]*statement{}
		}
		x.s.stmts[name] = st
	}
	x.stmts = nil
	if i := slices.Index(x.s.after.aside, x); i > 0 && x.s.after.aside[i-1].over {
		return // what the one before has restored is from before this one, too
	}
	x.conn.Statements.TakeBack(x.known)
}

// forget is for one that ran.
func (x *aside) forget() {
	x.over = true
	for _, st := range x.stmts {
		x.drop(st)
	}
}

func (x *aside) drop(st *statement) {
	delete(x.stmts, st.name)
	if st.shared != nil {
		x.s.p.statements.give(st.shared)
	}
}

// forgetAll drops those with names, as DEALLOCATE ALL does.
func (s *session) forgetAll() {
	for name := range s.stmts {
		if name != "" {
			s.forget(name)
		}
	}
}
