package proxy

import (
	"fmt"
	"hash/maphash"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/tidemarkdb/tidemark/router"
)

// syncSQL brings a server connection with any settings to these.
func (s *settings) syncSQL() string { return "RESET SESSION AUTHORIZATION; RESET ALL" + s.sql }

// fingerprint follows a change of what is set. A role may be one that the user of session_authorization must not set: it was allowed by
// another, before a SET LOCAL SESSION AUTHORIZATION ended. So who has logged in to the server sets it.
func (s *settings) fingerprint() {
	s.serializable = strings.EqualFold(s.base["default_transaction_isolation"], "serializable")
	names := inOrder(s.base)
	if len(names) == 0 {
		s.sql, s.print = "", 0
		return
	}
	var b strings.Builder
	for i, n := range names {
		if i == 0 {
			b.WriteString("; SELECT ")
		} else {
			b.WriteString(", ")
		}
		if _, as := s.base["session_authorization"]; as && n == "role" {
			b.WriteString("pg_catalog.set_config('session_authorization', NULL, true), ")
		}
		appendSet(&b, n, s.base[n], false)
	}
	s.sql = b.String()
	s.print = max(1, maphash.String(printSeed, s.sql))
}

// printSeed makes prints unpredictable to clients, so that nobody can choose settings that collide with another's.
var printSeed = maphash.MakeSeed()

// settingsUnknown is the print of a connection whose settings nobody knows: no settings have it but by one chance in 2^64.
const settingsUnknown = ^uint64(0)

// or is value, with what it is where the session has not set it.
func (s *settings) or(name, byDefault string) string {
	if v, ok := s.value(name); ok {
		return v
	}
	return byDefault
}

// again are statements that give settings which the changes reset the values of the startup message: a server that runs a RESET
// knows nothing of that. What a RESET ALL spares (localDefaults) the server has reset for the session, too.
func (s *settings) again(c *router.SettingChange) (statements []string) {
	if len(s.start) == 0 {
		return nil
	}
	for ; c != nil; c = c.Next {
		var spared []string
		if c.Op == router.ResetAll {
			spared = s.localDefaults()
		}
		for _, name := range inOrder(s.start) {
			switch {
			case slices.Contains(spared, name):
				statements = append(statements, setAgain(name, s.behind(name), false), setAgain(name, s.start[name], true))
			case c.Op == router.ResetAll && inResetAll(name), c.Op == router.ResetOp && (c.Name == name || c.Name == "session_authorization" && name == "role"):
				statements = append(statements, setAgain(name, s.start[name], c.Local))
			}
		}
	}
	return statements
}

// behind is the value that a setting of the startup message will have behind the open transaction, if that commits now.
func (s *settings) behind(name string) string {
	for i := len(s.log) - 1; i >= 0; i-- {
		x := &s.log[i]
		switch {
		case x.savepoint != "" || x.local:
		case x.name == "" && x.reset && !slices.Contains(x.spared, name), x.name == name && x.reset:
			return s.start[name]
		case x.name == name:
			return x.value
		}
	}
	return s.base[name]
}

// setAgain is a SET where one can have just that value: unlike a SELECT it takes no snapshot, behind which it would be too late to
// choose an isolation level.
func setAgain(name, value string, local bool) string {
	values := []string{quoteLiteral(value)}
	if listOfNames[name] {
		values = strings.Split(value, ", ")
		for _, v := range values {
			if quoted := strings.Trim(v, `"`); !plainName(v) && (v != `"`+quoted+`"` || quoted == "") {
				var b strings.Builder
				b.WriteString("SELECT ")
				appendSet(&b, name, value, local)
				return b.String()
			}
		}
	}
	scope := "SET SESSION "
	if local {
		scope = "SET LOCAL "
	}
	return scope + `"` + strings.ReplaceAll(strings.ReplaceAll(name, `"`, `""`), ".", `"."`) + `" TO ` + strings.Join(values, ", ")
}

func appendSet(b *strings.Builder, name, value string, local bool) {
	b.WriteString("pg_catalog.set_config(")
	b.WriteString(anyEncoding(name) + ", " + anyEncoding(value))
	b.WriteString(", " + strconv.FormatBool(local) + ")")
}

// anyEncoding is a text for a connection that may have another client_encoding until the statement itself has set it.
func anyEncoding(text string) string {
	if asciiOnly(text) {
		return quoteLiteral(text)
	}
	return fmt.Sprintf(`pg_catalog.convert_from(E'\\x%x', pg_catalog.current_setting('client_encoding'))`, text)
}

// inOrder are names in the order in which they can be set: client_encoding goes first, for the values of others are in it;
// session_authorization goes before role, which it resets, and both behind all else, which they may forbid.
func inOrder(values map[string]string) []string {
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	rank := func(n string) string {
		switch n {
		case "client_encoding":
			return ""
		case "session_authorization":
			return "\xff0"
		case "role":
			return "\xff1"
		}
		return n
	}
	sort.Slice(names, func(i, j int) bool { return rank(names[i]) < rank(names[j]) })
	return names
}

// raw is the value of a SET as set_config() takes it: PostgreSQL flattens a list the same way (flatten_set_variable_args).
func raw(c *router.SettingChange) string {
	if c.Function {
		return c.Value()
	}
	if !listOfNames[c.Name] {
		return strings.Join(c.Values, ", ")
	}
	names := make([]string, len(c.Values))
	for i, v := range c.Values {
		names[i] = v
		if !plainName(v) {
			names[i] = `"` + strings.ReplaceAll(v, `"`, `""`) + `"`
		}
	}
	return strings.Join(names, ", ")
}

// plainName says whether a name needs no quotes in a list. PostgreSQL also quotes key words there, which only shows.
func plainName(v string) bool {
	for i, c := range []byte(v) {
		if c != '_' && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return v != ""
}

// listOfNames are the settings whose parts are identifiers (GUC_LIST_QUOTE) and that a session can set.
var listOfNames = map[string]bool{
	"search_path": true, "temp_tablespaces": true, "session_preload_libraries": true, "local_preload_libraries": true,
}

func quoteLiteral(v string) string {
	q := "'" + strings.ReplaceAll(v, "'", "''") + "'"
	if strings.Contains(v, `\`) {
		return "E" + strings.ReplaceAll(q, `\`, `\\`)
	}
	return q
}
