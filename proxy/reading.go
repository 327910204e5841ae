package proxy

import (
	"strings"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/router"
)

// PostgreSQL reads the literals of a statement when it prepares it: '2020-01-01 00:00'::timestamptz is the moment that TimeZone makes of it
// then, and stays that. So statements with literals are shared only by those who read them alike. Who has come to read them otherwise since
// has a statement of its own, which is prepared as it was the first time, wherever it gets to: under the settings from before.

// reading are the values of router.Readers, empty for the servers' defaults.
type reading [len(router.Readers)]string

// reads is how the session reads literals behind what has been executed in its batch.
func (s *session) reads() (r reading) {
	x := &s.settings
	if f := s.after.foreseen; f != nil {
		x = f.states[0]
	}
	if len(x.base)+len(x.log) == 0 {
		return r
	}
	for i, name := range router.Readers {
		r[i], _ = x.value(name)
	}
	return r
}

// read notes how the literals of a new statement are read.
func (s *session) read(st *statement) {
	if st.literals = hasLiterals(st.sql); st.literals {
		if r := s.reads(); r != (reading{}) {
			st.reading = &r
		}
	}
}

// apart gives a statement that is about to be used, and is shared, an id of its own if the session reads literals otherwise by now, or
// may: a server that prepares it again, or looks at its tables anew, does so for all who share it.
func (s *session) apart(st *statement) {
	if !st.literals || st.shared == nil || st.shared.key == "" || !s.coded && s.reads() == st.readAs() {
		return
	}
	before := st.shared
	s.p.statements.give(before)
	st.shared = s.p.statements.own()
	st.shared.inferred.Store(before.inferred.Load())
	st.id = st.shared.id
	st.names = namesOf(st)
}

// readAs is how the statement's literals were read first.
func (st *statement) readAs() reading {
	if st.reading == nil {
		return reading{}
	}
	return *st.reading
}

// readsAnew has the link's connection read literals as r says, until its transaction ends or it is told otherwise.
// errors is MuteError if the client does not hear of one.
func (s *session) readsAnew(l *engine.Link, r reading, errors engine.Mute) {
	var b strings.Builder
	b.WriteString("SELECT ")
	for i, name := range router.Readers {
		if i > 0 {
			b.WriteString(", ")
		}
		if r[i] != "" {
			appendSet(&b, name, r[i], true)
		} else {
			b.WriteString("pg_catalog.set_config('" + name + "', NULL, true)")
		}
	}
	s.runUnseen(l, b.String(), engine.Expect{Kind: engine.Parse, Mute: engine.MuteAll&^engine.MuteError | errors})
}

// hasLiterals says whether a statement may have any but numbers: there is a quote, or a dollar sign that begins no parameter.
func hasLiterals(text []byte) bool {
	for i, c := range text {
		if c == '\'' || c == '$' && (i+1 == len(text) || text[i+1] < '0' || text[i+1] > '9') {
			return true
		}
	}
	return false
}
