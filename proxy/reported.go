package proxy

import (
	"maps"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
)

// A server tells its client by ParameterStatus what some of its settings are, and drivers rely on it: what a date looks like,
// how strings are escaped, in which encoding. What a server says is passed on, but a session changes servers, and each has
// told what whoever used it before had set. So the session keeps a fingerprint of what its client knows; a server connection
// has one of what it has reported. Where they differ when the session begins to use the connection, the client is told all.

// tell lets the client know the settings of a link that the session begins to use.
func (s *session) tell(l *engine.Link) {
	if s.reported != l.Conn.Reported {
		s.reported = l.Conn.Reported
		s.SetOut(s.appendReported(s.Out(), l.Conn.Params))
	}
}

// appendReported appends a ParameterStatus for each setting that is the session's.
func (s *session) appendReported(dst []byte, params map[string]string) []byte {
	for _, name := range sortedKeys(params) {
		if !backend.OfServer(name) {
			dst = wire.AppendParameterStatus(dst, name, s.asTold(name, params[name]))
		}
	}
	return dst
}

// asTold is a setting's value as the client of this session sees it: it logged in as somebody else than the server's role.
func (s *session) asTold(name, value string) string {
	if name == "session_authorization" && value == s.serverUser() {
		return s.client.user
	}
	return value
}

// startups are what servers reported to sessions that began with settings of their own.
type startups struct {
	mu   sync.Mutex
	told map[startup]map[string]string
}

type startup struct {
	print uint64 // of the settings
	user  string // whom the server knows
}

// maxStartups bounds startups, in entries of some hundred bytes.
const maxStartups = 1000

func (x *startups) get(key startup) (map[string]string, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	params, ok := x.told[key]
	return params, ok
}

func (x *startups) put(key startup, params map[string]string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.told == nil || len(x.told) >= maxStartups {
		x.told = map[startup]map[string]string{}
	}
	x.told[key] = params
}

// beginWith is what the client is told at its login: params are what one hears that sets nothing. A server is asked, once for
// each set of values, what it makes of settings in the startup message; those that it refuses end the login, as PostgreSQL's do.
func (s *session) beginWith(params map[string]string) (map[string]string, error) {
	if told, ok := s.beginning(params); ok {
		s.reported = backend.ReportedPrint(told)
		return told, nil
	}
	out := s.Out()
	s.SetOut(nil)
	l, err := s.acquire(s.p.shardMap.Shards()[s.p.defaultShard[0]].Name, backend.Write)
	s.SetOut(out) // acquire has told the client what it hears now anyway
	if err == nil && l.Err != nil {
		err = l.Err
	}
	if err != nil {
		return nil, err
	}
	told := maps.Clone(l.Conn.Params)
	s.release()
	s.p.startups.put(startup{s.settings.startPrint, s.serverUser()}, told)
	return told, nil
}

// beginning is what the client was told at its login, as far as that is known without a server.
func (s *session) beginning(params map[string]string) (map[string]string, bool) {
	if len(s.settings.start) == 0 {
		return params, true
	}
	told := maps.Clone(params)
	for name, value := range s.settings.start {
		switch {
		case name == "application_name" && plainText(value):
			told[name] = value
		case name == "client_encoding" && isUTF8(value):
			told[name] = "UTF8"
		case name == "extra_float_digits" && len(value) == 1 && value[0] >= '0' && value[0] <= '3':
		default:
			return s.p.startups.get(startup{s.settings.startPrint, s.serverUser()})
		}
	}
	return told, true
}

// plainText says whether an application_name is what the server makes of it.
func plainText(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return len(s) < nameDataLen
}

// noticesOfCut are what a server tells a client at its login whose application_name is too long, with the settings before it: the one that
// cuts it here tells nobody, or did so for another client.
func noticesOfCut(asked []wire.Parameter) (dst []byte) {
	silent := false
	for _, p := range asked {
		switch strings.ToLower(p.Name) {
		case "client_min_messages":
			level := strings.ToLower(p.Value)
			silent = level == "warning" || level == "error"
		case "application_name":
			if len(p.Value) < nameDataLen || silent {
				continue
			}
			end := nameDataLen - 1
			for utf8.ValidString(p.Value) && !utf8.RuneStart(p.Value[end]) {
				end--
			}
			dst = wire.AppendNoticeResponse(dst, wire.Noticef(wire.SeverityNotice, wire.NameTooLong, "identifier \"%s\" will be truncated to \"%s\"", p.Value, p.Value[:end]))
		}
	}
	return dst
}

// nameDataLen is PostgreSQL's NAMEDATALEN: longer names are cut.
const nameDataLen = 64

// isUTF8 says whether PostgreSQL takes an encoding's name for UTF8.
func isUTF8(encoding string) bool {
	name := encodingName(encoding)
	return name == "utf8" || name == "unicode"
}

// encodingName is an encoding's name as PostgreSQL looks it up: without anything but letters and digits, small (clean_encoding_name of
// encnames.c). asyncpg has quotes around it.
func encodingName(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		}
		return -1
	}, s)
}

// tellBeginning tells the client that its settings are again those that it began with: no server does, for none took part.
func (s *session) tellBeginning() {
	params, _ := s.p.backend.Shard(s.p.shardMap.Shards()[s.p.defaultShard[0]].Name).Params()
	params, ok := s.beginning(params)
	if !ok {
		s.reported = 0 // the next server tells
		return
	}
	if print := backend.ReportedPrint(params); print != s.reported {
		s.reported = print
		s.SetOut(s.appendReported(s.Out(), params))
	}
}
