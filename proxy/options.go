package proxy

import (
	"strconv"
	"strings"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// The startup parameter "options" is the command line of a server process: settings, by long options and by the old short ones. Which of
// them a client may make is for the server to say.

// shortOptions are PostgreSQL's short options (process_postgres_switches) and the settings that they make. Those without a name mean
// nothing to a client.
var shortOptions = map[byte]struct {
	name, value string            // value: of one that takes no argument
	takes       bool              // it takes an argument
	of          map[string]string // the settings that arguments name, which value is given to
}{
	'B': {name: "shared_buffers", takes: true},
	'C': {takes: true},
	'D': {takes: true},
	'E': {},
	'F': {name: "fsync", value: "false"},
	'N': {name: "max_connections", takes: true},
	'O': {name: "allow_system_table_mods", value: "true"},
	'P': {name: "ignore_system_indexes", value: "true"},
	'S': {name: "work_mem", takes: true},
	'T': {},
	'W': {name: "post_auth_delay", takes: true},
	'b': {},
	'd': {takes: true},
	'e': {name: "datestyle", value: "euro"},
	'f': {value: "false", takes: true, of: map[string]string{
		"s": "enable_seqscan", "i": "enable_indexscan", "o": "enable_indexonlyscan", "b": "enable_bitmapscan", "t": "enable_tidscan",
		"n": "enable_nestloop", "m": "enable_mergejoin", "h": "enable_hashjoin",
	}},
	'h': {name: "listen_addresses", takes: true},
	'i': {name: "listen_addresses", value: "*"},
	'j': {},
	'k': {name: "unix_socket_directories", takes: true},
	'l': {name: "ssl", value: "true"},
	'n': {},
	'p': {name: "port", takes: true},
	'r': {takes: true},
	's': {name: "log_statement_stats", value: "true"},
	't': {value: "true", takes: true, of: map[string]string{"pa": "log_parser_stats", "pl": "log_planner_stats", "e": "log_executor_stats"}},
	'v': {takes: true},
}

// parseOptions reads the settings of the startup parameter "options".
func parseOptions(s string) (params []wire.Parameter, err error) {
	words := splitOptions(s)
	for i := 0; i < len(words); i++ {
		w := words[i]
		if w == "--" { // the end of the options
			if i+1 < len(words) {
				return nil, errOption(words[i+1])
			}
			break
		}
		if len(w) < 2 || w[0] != '-' {
			return nil, errOption(w)
		}
		for rest := w[1:]; rest != ""; {
			c := rest[0]
			o, known := shortOptions[c]
			if c != 'c' && c != '-' && !known {
				return nil, errOption(w)
			}
			if rest = rest[1:]; c != 'c' && c != '-' && !o.takes {
				if o.name != "" {
					params = append(params, wire.Parameter{Name: o.name, Value: o.value})
				}
				continue
			}
			arg := rest
			if rest = ""; arg == "" {
				if i++; i == len(words) {
					return nil, errOption(w)
				}
				arg = words[i]
			}
			switch {
			case c == 'd':
				params = append(params, debugSettings(arg)...)
			case c == 'c' || c == '-':
				name, value, ok := strings.Cut(arg, "=")
				if !ok || name == "" {
					return nil, wire.Errorf(wire.SyntaxError, "%s requires a value", map[byte]string{'c': "-c ", '-': "--"}[c]+arg)
				}
				params = append(params, wire.Parameter{Name: strings.ReplaceAll(name, "-", "_"), Value: value})
			case o.of != nil:
				name, ok := o.of[arg]
				if !ok {
					return nil, errOption(w)
				}
				params = append(params, wire.Parameter{Name: name, Value: o.value})
			case o.name != "":
				params = append(params, wire.Parameter{Name: o.name, Value: arg})
			}
		}
	}
	return params, nil
}

// debugSettings are those of option -d (set_debug_options); what is no number counts as 0.
func debugSettings(arg string) []wire.Parameter {
	arg = strings.TrimLeft(arg, " \t\n\v\f\r")
	end := 0
	for end < len(arg) && (arg[end] >= '0' && arg[end] <= '9' || end == 0 && (arg[0] == '-' || arg[0] == '+')) {
		end++
	}
	level, _ := strconv.Atoi(arg[:end])
	if level <= 0 {
		return []wire.Parameter{{Name: "log_min_messages", Value: "notice"}}
	}
	params := []wire.Parameter{{Name: "log_min_messages", Value: "debug" + strconv.Itoa(level)}}
	for _, more := range []struct {
		from        int
		name, value string
	}{
		{2, "log_statement", "all"},
		{3, "debug_print_parse", "true"},
		{4, "debug_print_plan", "true"},
		{5, "debug_print_rewritten", "true"},
	} {
		if level >= more.from {
			params = append(params, wire.Parameter{Name: more.name, Value: more.value})
		}
	}
	return params
}

func errOption(word string) *wire.Error {
	return wire.Errorf(wire.SyntaxError, "invalid command-line argument for server process: %s", word).
		WithHint("Settings are given as -c name=value, or --name=value.")
}

// splitOptions splits at white space; a backslash takes the next character as it is (pg_split_opts).
func splitOptions(s string) []string {
	var words []string
	var word []byte
	in := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			word, in = append(word, s[i]), true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v':
			if in {
				words = append(words, string(word))
				word, in = word[:0], false
			}
		default:
			word, in = append(word, c), true
		}
	}
	if in {
		words = append(words, string(word))
	}
	return words
}

// passesAtStart says whether a setting of the startup message does nothing: those of a transaction are set anew when one begins. A value that
// is none the server refuses.
func passesAtStart(name, value string) bool {
	value = strings.ToLower(value)
	switch strings.ToLower(name) {
	case "transaction_isolation":
		return value == "serializable" || value == "repeatable read" || value == "read committed" || value == "read uncommitted"
	case "transaction_read_only", "transaction_deferrable":
		return value == "on" || value == "off" || value == "true" || value == "false" || value == "yes" || value == "no" || value == "1" || value == "0"
	}
	return false
}

// checkPreload refuses libraries that are loaded when a session begins: the server connections have begun theirs before.
func checkPreload(name, value string) error {
	switch name = strings.ToLower(name); name {
	case "session_preload_libraries", "local_preload_libraries":
		if strings.TrimSpace(value) != "" {
			return wire.Errorf(wire.FeatureNotSupported, "%s in the startup message is not supported", name).
				WithDetail("A server connection serves many clients, and has loaded its libraries when it was opened.").
				WithHint("LOAD the library, or have connections load it by ALTER ROLE ... SET session_preload_libraries.")
		}
	}
	return nil
}
