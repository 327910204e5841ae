package router

import (
	"regexp"
	"slices"
	"strings"
)

// What the code of a function does to its session is unseen on the wire. What it may be is read from the code's text:
//
//   - Does it leave anything behind at all? Then a function counts as volatile, whatever it is declared, and so does a write
//     to a table that has it as a trigger.
//   - Which settings does it make whose names have a dot? A server has a list of all others, but not of these.
//   - Does it put such a name together, so that it cannot be read?
//   - Does it keep state in its server process that nothing takes away? See keeps.go.
//   - Does it run statements by text, so that it may execute what its client has prepared?
//
// All of it errs on the side of too much: who mentions a function does what the function does.
type code struct {
	traces   bool
	settings []string
	opaque   bool
	keeps    bool
	executes bool
}

var (
	setLocal       = regexp.MustCompile(`(?i)\bset_config\s*\([^;()]*,\s*true\s*\)`)
	setConfigCall  = regexp.MustCompile(`(?i)\bset_config\s*\(`)
	setConfigNamed = regexp.MustCompile(`(?i)\bset_config\s*\(\s*'([^']*)'`)
	setStatement   = regexp.MustCompile(`(?i)\bset\s+(?:session\s+)?"?([a-z_][\w$]*\.[\w$.]+)"?\s*(?:=|to\b)`)
	setByText      = regexp.MustCompile(`(?i)'\s*(?:set|reset|discard)\s`)
	execute        = regexp.MustCompile(`(?i)\bexecute\b`)
	runsText       = regexp.MustCompile(`(?i)\b(?:execute|deallocate|prepare|spi_\w+)\b`) // plpy.execute among them
	leavesBehind   = regexp.MustCompile(`(?i)\bset_config\s*\(|(?:;|\bbegin|\bthen|\belse|\bloop|^|')\s*(?:set|reset|discard|prepare|deallocate|listen|load)\s|\b(?:create|into)\s+(?:local\s+|global\s+)?temp|\bpg_(?:try_)?advisory_lock`)
)

// read reads a function's code.
func read(text string) (c code) {
	text = setLocal.ReplaceAllString(text, "")
	calls := setConfigNamed.FindAllStringSubmatch(text, -1)
	for _, found := range append(calls, setStatement.FindAllStringSubmatch(text, -1)...) {
		if name := strings.ToLower(found[1]); strings.Contains(name, ".") && !slices.Contains(c.settings, name) {
			c.settings = append(c.settings, name)
		}
	}
	c.opaque = len(calls) < len(setConfigCall.FindAllString(text, -1)) || execute.MatchString(text) && setByText.MatchString(text)
	c.keeps = keepsState.MatchString(text)
	c.executes = runsText.MatchString(text)
	c.traces = c.keeps || leavesBehind.MatchString(text)
	return c
}

// maxSettings bounds the names that are asked for behind a function.
const maxSettings = 200

// opaque says whether code may make a setting whose name nobody knows, itself or by a function that it mentions.
func (r *Router) opaque(text string) bool {
	text = strings.ToLower(text)
	return read(text).opaque || slices.ContainsFunc(r.names.opaque, func(name string) bool { return strings.Contains(text, name) })
}

// executes says whether code may execute, or deallocate, what its client has prepared, itself or by a function that it mentions.
func (r *Router) executes(text string) bool {
	text = strings.ToLower(text)
	return runsText.MatchString(text) || slices.ContainsFunc(r.names.executes, func(name string) bool { return strings.Contains(text, name) })
}

// Settings are those with a dot in their names that functions of the database make.
func (r *Router) Settings() []string { return r.names.settings }
