package router

import (
	"slices"
	"strings"

	"github.com/tidemarkdb/tidemark/internal/sql"
)

// Session is the part of a session's state that changes what a statement means. It is immutable: make a new one when
// one of its settings changes. Sessions with equal settings share cached plans.
type Session struct {
	path    []string // schemas in order, pg_catalog not among them unless named
	utf8    bool     // bytes of text keys are the server's bytes
	escapes bool     // see Conforming
	key     string   // prefix of cache keys
}

// hidden are the client encodings in which the second byte of a character can look like a quote or a backslash. PostgreSQL
// allows them for clients only.
var hidden = map[string]bool{
	"SJIS": true, "SHIFTJIS": true, "MSKANJI": true, "WIN932": true, "WINDOWS932": true, "BIG5": true, "WIN950": true, "WINDOWS950": true,
	"GBK": true, "WIN936": true, "WINDOWS936": true, "GB18030": true, "UHC": true, "WIN949": true, "WINDOWS949": true, "JOHAB": true,
	"SHIFTJIS2004": true,
}

// NewSession takes the session's user, its search_path as SHOW prints it ("" is the default, `"$user", public`), its
// client_encoding, and standard_conforming_strings. It fails for settings under which SQL cannot be read safely:
// encodings whose second bytes look like quotes (SJIS, BIG5, GBK, GB18030, UHC, JOHAB, SHIFT_JIS_2004). The error is a *Refusal.
func NewSession(user, searchPath, clientEncoding string, conformingStrings bool) (*Session, error) {
	enc := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r - 32
		}
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, clientEncoding)
	if hidden[enc] {
		return nil, &Refusal{
			Code: "0A000", Message: "client_encoding " + clientEncoding + " is not supported",
			Detail: "Parts of its characters look like quotes, so that Tidemark could not tell where a string ends.",
			Hint:   "Use client_encoding UTF8.",
		}
	}
	s := &Session{escapes: !conformingStrings, utf8: enc == "" || enc == "UTF8" || enc == "UNICODE" || enc == "SQLASCII"}
	if searchPath == "" {
		searchPath = defaultPath
	}
	path, ok := splitPath(searchPath)
	if !ok {
		return nil, &Refusal{Code: "22023", Message: `invalid value for parameter "search_path": "` + searchPath + `"`}
	}
	for _, schema := range path {
		if schema == "$user" {
			schema = user
		}
		if schema != "" {
			s.path = append(s.path, schema)
		}
	}
	s.key = strings.Join(s.path, "\x00") + "\x00\x00"
	if enc != "" && enc != "UTF8" && enc != "UNICODE" {
		s.key += enc // the same bytes are other characters
	}
	return s, nil
}

// Conforming is a query string of the session as the router and the servers are to read it: where standard_conforming_strings is
// off, its plain strings with backslashes are written as E'...', which means the same under either value, here, on any shard and
// in the cache.
func (s *Session) Conforming(text []byte) []byte {
	if !s.escapes {
		return text
	}
	return sql.Conforming(text)
}

// Key is equal for sessions for which the same SQL means the same.
func (s *Session) Key() string { return s.key }

// splitPath follows SplitIdentifierString (varlena.c): names between commas, quoted or folded to lower case.
func splitPath(s string) (names []string, ok bool) {
	for s = strings.TrimSpace(s); s != ""; {
		if s[0] == '"' {
			var b strings.Builder
			i := 1
			for {
				if i >= len(s) {
					return nil, false
				}
				if s[i] == '"' {
					if i+1 < len(s) && s[i+1] == '"' {
						i++
					} else {
						break
					}
				}
				b.WriteByte(s[i])
				i++
			}
			names = append(names, b.String())
			s = strings.TrimSpace(s[i+1:])
		} else {
			i := strings.IndexAny(s, ", \t\n\r")
			if i < 0 {
				i = len(s)
			}
			if i == 0 {
				return nil, false
			}
			names = append(names, strings.ToLower(s[:i]))
			s = strings.TrimSpace(s[i:])
		}
		if s == "" {
			return names, true
		}
		if s[0] != ',' {
			return nil, false
		}
		if s = strings.TrimSpace(s[1:]); s == "" {
			return nil, false
		}
	}
	return names, true
}

// unreadable refuses what names tables in an encoding that the shard map and the catalog are not in: where they are is not known.
func (s *statement) unreadable() *Refusal {
	if s.ses.utf8 || len(s.all()) == 1 {
		return nil
	}
	plain := func(name string) bool { return ascii([]byte(name)) }
	for _, rel := range s.f.Relations {
		if !plain(rel.Name) || !plain(rel.Schema) || rel.Schema == "" && slices.ContainsFunc(s.ses.path, func(name string) bool { return !plain(name) }) {
			return refuse("names of tables or schemas outside of ASCII are not supported in this client_encoding with several shards",
				"Tidemark knows the names as they are in UTF8.", "Use client_encoding UTF8.")
		}
	}
	return nil
}
