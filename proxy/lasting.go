package proxy

import (
	"slices"
	"strings"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
)

// A connection that a session keeps until its end may have settings that a function made and nobody knows, which a RESET ALL would take
// away. So before the session uses it again, behind changes of its settings on another shard, only those are taken back there that the
// session has had and has not any more.

// lasting is of a session that keeps connections until its end.
type lasting struct {
	why string          // it does; empty in session mode
	had map[string]*had // by shard, where there are several
}

// had is what a session has had on a connection.
type had struct {
	names  []string // of settings
	resets uint32   // settings.resets
}

// forever is why the session keeps its connections until its end, or empty.
func (s *session) forever() string {
	if s.lasting == nil {
		return ""
	}
	return s.lasting.why
}

// lasts notes why it keeps them.
func (s *session) lasts(why string) {
	if s.lasting == nil {
		s.lasting = &lasting{}
	}
	s.lasting.why = why
}

// keepsForever says whether the link's connection stays with the session until its end.
func (s *session) keepsForever(l *engine.Link) bool {
	return s.hasPinned(l) && (s.mode == backend.Session || s.forever() != "")
}

// noteHad remembers what the session has on a connection that it keeps.
func (s *session) noteHad(l *engine.Link) {
	if len(s.p.shards) == 1 || !s.keepsForever(l) {
		return
	}
	if s.lasting == nil {
		s.lasting = &lasting{}
	}
	if s.lasting.had == nil {
		s.lasting.had = map[string]*had{}
	}
	h := s.lasting.had[l.Shard]
	if h == nil {
		h = &had{}
		s.lasting.had[l.Shard] = h
	}
	for name := range s.settings.base {
		if !slices.Contains(h.names, name) {
			h.names = append(h.names, name)
		}
	}
	h.resets = s.settings.resets
}

// keptSQL brings a connection that the session keeps to its settings, and leaves there what only a function knows.
func (s *session) keptSQL(l *engine.Link) string {
	gone := map[string]string{}
	if len(s.p.shards) > 1 {
		var h *had
		if s.lasting != nil {
			h = s.lasting.had[l.Shard]
		}
		if h == nil || h.resets != s.settings.resets { // it has nothing of a function yet, or that was reset with all else
			return s.settings.syncSQL()
		}
		for _, name := range h.names {
			if _, is := s.settings.base[name]; !is && inResetAll(name) {
				gone[name] = ""
			}
		}
	}
	var b strings.Builder
	for _, name := range slices.Backward(inOrder(gone)) { // client_encoding at the end, for names are in it
		if b.Len() == 0 {
			b.WriteString("; SELECT ")
		} else {
			b.WriteString(", ")
		}
		b.WriteString("pg_catalog.set_config(" + anyEncoding(name) + ", NULL, false)")
	}
	return "RESET SESSION AUTHORIZATION" + b.String() + s.settings.sql
}
