package router

import (
	"regexp"
	"slices"
	"strings"
)

// What the code of a function does to its session is unseen on the wire. What it may be is read from the code's text:
//
//   - Does it leave anything behind at all (Dirty)? Then a function counts as volatile, whatever it is declared.
//   - Which settings does it make whose names have a dot? A server has a list of all others, but not of these.
//   - Does it put such a name together, so that it cannot be read (Opaque)?
//   - Does it keep state in its server process that no catalog shows and DISCARD ALL leaves there (Keeps)? Who runs it keeps the
//     connection, and nobody gets it afterwards.
//   - Does it run statements by text, so that it may execute what its client has prepared (Executes)?
//   - May it change search_path or the role, for the session or for the transaction alone, so that names mean something else behind it
//     (Restates), or how literals are read? By a RESET (Resets)?
//
// All of it errs on the side of too much. follow.go has it pass to who runs such code.

// keepers are the functions of PostgreSQL, and of what it brings along, that keep such state. Who has one of these names does what
// they do.
var keepers = set(
	"setseed",                            // the next number that random() makes
	"dblink_connect", "dblink_connect_u", // a connection to another server, logged in to it
	"pg_backup_start",                                                           // a backup under way
	"pg_create_physical_replication_slot", "pg_create_logical_replication_slot", // a slot, if it is temporary
	"pg_copy_physical_replication_slot", "pg_copy_logical_replication_slot",
	"pg_replication_origin_session_setup", // the origin of what is written
	"sepgsql_setcon",                      // the label of the process
)

// leaving are the functions whose name says what they leave: keepers, locks of the session, and set_config where its arguments are not
// looked at.
var leaving = slices.Concat(members(keepers), members(sessionLocks), []string{"set_config"})

// leftBy is what the function itself leaves that is not read in its text.
func (f *Function) leftBy() Flags {
	switch {
	case keepers[f.Name]:
		return Dirty | Keeps
	case f.Name == "set_config" && !f.User:
		return Dirty | Opaque | Restates | Resets
	case sessionLocks[f.Name] && !f.User:
		return Dirty
	}
	return 0
}

func members(set map[string]bool) []string {
	list := make([]string, 0, len(set))
	for n := range set {
		list = append(list, n)
	}
	slices.Sort(list)
	return list
}

var (
	setLocal       = regexp.MustCompile(`(?i)\bset_config\s*\([^;()]*,\s*true\s*\)`)
	setConfigCall  = regexp.MustCompile(`(?i)\bset_config\s*\(`)
	setConfigNamed = regexp.MustCompile(`(?i)\bset_config\s*\(\s*'([^']*)'(?:::text)?\s*,`)
	setStatement   = regexp.MustCompile(`(?i)\bset\s+(?:session\s+)?"?([a-z_][\w$]*\.[\w$.]+)"?\s*(?:=|to\b)`)
	setByText      = regexp.MustCompile(`(?i)'\s*(?:set|reset|discard)\s`)
	execute        = regexp.MustCompile(`(?i)\bexecute\b`)
	runsText       = regexp.MustCompile(`(?i)\b(?:execute|deallocate|prepare|spi_\w+)\b`) // plpy.execute among them
	leavesBehind   = regexp.MustCompile(`(?i)\bset_config\s*\(|(?:;|\bbegin|\bthen|\belse|\bloop|^|['$])` + gap + `*(?:set|reset|discard|prepare|deallocate|listen|load)` + gap + `|\b(?:create|into)\s+(?:local\s+|global\s+)?temp|\bpg_(?:try_)?advisory_lock`)
	// keepsState finds a call of a keeper, SET seed and LOAD; inLanguage what the procedural languages that come with PostgreSQL keep for
	// a session: %_SHARED of PL/Perl, GD and SD of PL/Python, GD of PL/Tcl.
	keepsState = regexp.MustCompile(`(?i)\b(?:` + strings.Join(members(keepers), "|") + `)\s*\(` +
		`|\bset\s+(?:session\s+|local\s+)?"?seed"?\s*(?:=|to\b)|\bset_config\s*\(\s*'seed'` +
		`|(?:;|\bbegin|\bthen|\belse|\bloop|^|')\s*load\s+'`)
	inLanguage = regexp.MustCompile(`[$%]_SHARED\b|\b[GS]D\s*\[|\b[GS]D\.\w|\bin\s+[GS]D\b|\bupvar\s+#0\s+\S+\s+GD\b`)
)

// restatesText finds what speaks of search_path, the role or Readers; the comma is from codeQuery.
var restatesText = regexp.MustCompile(`(?i)\bsearch_path\b|\bsession_authorization\b|'(?:role|` + readers + `)'|\bset_config,|` +
	`\b(?:set|reset)` + gap + `+(?:(?:local|session)` + gap + `+)?"?(?:schema|role|all|time|xml|` + readers + `|(?:session` + gap + `+)?authorization)\b`)

// Readers are the settings by which PostgreSQL reads the literals of a statement when it prepares it, or what they are compared with.
var Readers = [...]string{"array_nulls", "datestyle", "intervalstyle", "lc_monetary", "timezone", "timezone_abbreviations", "transform_null_equals", "xmloption"}

var readers = strings.Join(Readers[:], "|")

// resetsText finds what may take the role back to its default.
var resetsText = regexp.MustCompile(`(?i)\b(?:reset|default|null)\b`)

// gap is of what stands between two words: blanks and comments.
const gap = `(?:\s|--[^\n]*|/\*(?:[^*]|\*[^/])*\*/)`

// read reads a piece of code: what it may leave, and the settings that it makes.
func read(text string) (leaves Flags, settings []string) {
	unread := runsText.MatchString(text) || len(setConfigNamed.FindAllStringIndex(text, -1)) < len(setConfigCall.FindAllStringIndex(text, -1))
	if unread || restatesText.MatchString(text) {
		leaves |= Restates
	}
	if unread || leaves&Restates != 0 && resetsText.MatchString(text) {
		leaves |= Resets
	}
	text = setLocal.ReplaceAllString(text, "")
	calls := setConfigNamed.FindAllStringSubmatch(text, -1)
	for _, found := range append(calls, setStatement.FindAllStringSubmatch(text, -1)...) {
		if name := strings.ToLower(found[1]); strings.Contains(name, ".") && !slices.Contains(settings, name) {
			settings = append(settings, name)
		}
	}
	if leavesBehind.MatchString(text) {
		leaves |= Dirty
	}
	if len(calls) < len(setConfigCall.FindAllString(text, -1)) || execute.MatchString(text) && setByText.MatchString(text) {
		leaves |= Dirty | Opaque
	}
	if keepsState.MatchString(text) || inLanguage.MatchString(text) {
		leaves |= Dirty | Keeps
	}
	if runsText.MatchString(text) {
		leaves |= Executes
	}
	return leaves, settings
}

// maxSettings bounds the names that are asked for behind a function.
const maxSettings = 200

// Settings are those with a dot in their names that functions of the database make.
func (r *Router) Settings() []string { return r.names.settings }
