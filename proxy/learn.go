package proxy

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// A function can change the session's settings, and nothing on the wire shows it. So what asks a server for state that pins
// (see pins.go) asks for the settings too, and the session takes them over: of PostgreSQL's own those that were set in the
// session, and of those with a dot in their names, of which a server has no list, the ones that the session knows and the ones
// that the code of functions mentions (router.Router.Settings). Code that puts such a name together pins its session for good.

// What separates the answer's names from values, and one setting from the next.
const (
	unitSeparator   = '\x1f'
	recordSeparator = '\x1e'
)

// question is one about the state of a session's server connection. Few sessions ever ask.
type question struct {
	named    []string     // settings that may have been made
	prepared bool         // it is about prepared statements too
	resets   bool         // the role may have been reset
	again    int          // how often it has been asked in vain
	reply    engine.Reply // the server's
}

// mayHaveSet notes names of settings that the next question is about.
func (s *session) mayHaveSet(names ...string) {
	if s.question == nil {
		s.question = &question{}
	}
	s.question.named = append(s.question.named, names...)
}

// asks has the question asked of what p may leave in the link's connection.
func (s *session) asks(l *engine.Link, p *router.Plan) {
	s.askState = s.askState || s.mayChangeState(l, p)
	if s.askState && p.Has(router.Resets) {
		s.mayHaveSet()
		s.question.resets = true
	}
}

// askForState sends the question.
func (s *session) askForState(l *engine.Link) {
	s.mayHaveSet()
	s.question.reply = engine.Reply{}
	text := stateSQL + ", " + s.settingsSQL()
	if s.question.prepared {
		text += ", " + preparedSQL
	}
	s.queryUnseen(l, text, &s.question.reply)
}

// settingsSQL is a query for the settings that the session may have: one value, of those that are set.
func (s *session) settingsSQL() string {
	var b strings.Builder
	b.WriteString("(SELECT pg_catalog.string_agg(name || chr(31) || value, chr(30)) FROM (" +
		"SELECT name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings WHERE source = 'session' AND name !~ '^transaction_'" +
		" UNION ALL SELECT name, pg_catalog.current_setting(name, true) FROM pg_catalog.unnest(ARRAY['role','session_authorization'")
	for _, name := range s.customSettings() {
		b.WriteByte(',')
		b.WriteString(quoteLiteral(name))
	}
	b.WriteString("]) name) s(name, value))")
	return b.String()
}

// customSettings are the names with a dot that the session may have.
func (s *session) customSettings() []string {
	names := map[string]bool{}
	for _, n := range s.p.router.Load().Settings() {
		names[n] = true
	}
	for _, n := range s.question.named {
		if strings.Contains(n, ".") {
			names[n] = true
		}
	}
	for n := range s.settings.base {
		if strings.Contains(n, ".") {
			names[n] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// learn takes over the settings of the link's connection, as settingsSQL gives them. The error is for settings under which SQL
// cannot be read safely.
//
// Behind SET SESSION AUTHORIZATION and SET ROLE NONE a server has no role, and behind RESET ROLE too, which takes the client back to that of
// its startup message.
func (s *session) learn(l *engine.Link, answer []byte, resets bool) error {
	found := map[string]string{}
	for record := range bytes.SplitSeq(answer, []byte{recordSeparator}) {
		if name, value, ok := bytes.Cut(record, []byte{unitSeparator}); ok {
			found[sql.Lower(string(name))] = string(value)
		}
	}
	before, asIs := maps.Clone(s.settings.base), true
	who := found["session_authorization"]
	switched := who != s.serverUser() && who != before["session_authorization"] // which takes the role away, also one of the startup message
	for name := range before {
		if _, is := found[name]; !is && serverKnows(name) {
			asIs = s.settings.undo(name) && asIs
		}
	}
	_, begins := s.settings.start["role"]
	for name, value := range found {
		_, had := before[name]
		switch {
		case value == before[name] && had, value == "" && !had && strings.Contains(name, "."):
		case !had && name == "role" && value == "none", !had && name == "session_authorization" && value == s.serverUser():
		case name == "role" && value == "none" && switched:
			delete(s.settings.base, name)
		case name == "role" && value == "none" && begins && !resets:
			s.settings.put(name, value)
		case name == "role" && value == "none", name == "session_authorization" && value == s.serverUser():
			asIs = s.settings.undo(name) && asIs
		default:
			s.settings.put(name, value)
		}
	}
	if asIs && maps.Equal(before, s.settings.base) {
		return nil
	}
	s.settings.fingerprint()
	if l.Conn.Settings = s.settings.print; !asIs {
		l.Conn.Settings = settingsUnknown
	}
	v, err := s.viewWith(nil)
	if err != nil {
		return err
	}
	s.view = v
	return nil
}

// serverKnows says whether a setting that is set in the session is always in settingsSQL's answer.
func serverKnows(name string) bool {
	return !strings.Contains(name, ".") && name != "role" && name != "session_authorization" && !passing(name)
}

// stateAnswer is what the server said to stateSQL and what was asked with it.
type stateAnswer struct {
	clean              bool   // nothing is left in the connection that would miss its session
	resets             bool   // see question
	channels           []byte // that it listens to
	settings, prepared []byte
	asked              bool // for prepared
}

// maxQuestions bounds how often the question is asked again: under a short statement_timeout there may never be an answer.
const maxQuestions = 10

// asksAgain says whether the question is to be asked again: a cancel request that was on its way for the client's statement has hit it.
func (s *session) asksAgain() bool {
	q := s.question
	if q.reply.Err == nil || q.reply.Err.Code != wire.QueryCanceled || q.again == maxQuestions {
		return false
	}
	q.again++
	s.askState = true
	return true
}

// stateAnswer is the answer to the question; ok is false if there is none.
func (s *session) stateAnswer() (a stateAnswer, ok bool) {
	q := s.question
	s.question = nil
	if q.reply.Err != nil || q.reply.Row == nil {
		return a, false
	}
	row := wire.DataRow(q.reply.Row)
	if !row.Next() {
		return a, false
	}
	a.clean, a.asked, a.resets = string(row.Value()) == "t", q.prepared, q.resets
	for _, value := range []*[]byte{&a.channels, &a.settings, &a.prepared} {
		if value == &a.prepared && !a.asked {
			break
		}
		if !row.Next() {
			return a, false
		}
		*value = row.Value()
	}
	return a, true
}
