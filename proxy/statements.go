package proxy

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// registry gives each distinct (text, parameter types) that some client has prepared under a name one id, by which server
// connections know it: clients that prepare the same share what is prepared. An id lives as long as a client uses it.
type registry struct {
	last atomic.Uint64

	mu   sync.Mutex
	byID map[string]*shared
}

type shared struct {
	id   uint64
	uses int
}

// fresh is an id for an unnamed statement, which is never shared.
func (r *registry) fresh() uint64 { return r.last.Add(1) }

// take returns the id of a statement and counts one more use; give takes a use back.
func (r *registry) take(sql []byte, oids []uint32) (key string, id uint64) {
	b := make([]byte, 0, 4+4*len(oids)+len(sql))
	b = binary.BigEndian.AppendUint32(b, uint32(len(oids)))
	for _, o := range oids {
		b = binary.BigEndian.AppendUint32(b, o)
	}
	key = string(append(b, sql...))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byID == nil {
		r.byID = map[string]*shared{}
	}
	x := r.byID[key]
	if x == nil {
		x = &shared{id: r.fresh()}
		r.byID[key] = x
	}
	x.uses++
	return key, x.id
}

func (r *registry) give(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if x := r.byID[key]; x != nil {
		if x.uses--; x.uses == 0 {
			delete(r.byID, key)
		}
	}
}

// keep makes the statement the client's own under its name.
func (s *session) keep(st *statement) {
	if st.name == "" {
		st.id = s.p.statements.fresh()
	} else {
		st.key, st.id = s.p.statements.take(st.sql, st.oids)
	}
	s.stmts[st.name] = st
}

// forget drops a named statement of the client.
func (s *session) forget(name string) {
	if st := s.stmts[name]; st != nil {
		delete(s.stmts, name)
		if st.key != "" {
			s.p.statements.give(st.key)
		}
	}
}

func (s *session) forgetAll() {
	for name := range s.stmts {
		s.forget(name)
	}
}
