package config

import (
	"fmt"
	"strings"
)

// lookup finds an environment variable, as os.LookupEnv does.
type lookup func(name string) (string, bool)

// expand replaces ${NAME} and ${NAME:-default} in a scalar's text by the environment's values, and $$ by one $. The text
// has been parsed as YAML already, so no value can change the structure of the file. A dollar sign before
// anything else stays, as passwords often have one. Values are not expanded again.
//
// used says whether any variable was used: such a text must not be shown, for the value may be secret.
func expand(text string, env lookup) (out string, used bool, err error) {
	if !strings.Contains(text, "$") {
		return text, false, nil
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "$")
		b.WriteString(before)
		switch {
		case !found:
			return b.String(), used, nil
		case strings.HasPrefix(rest, "$"):
			b.WriteByte('$')
			text = rest[1:]
		case strings.HasPrefix(rest, "{"):
			inside, after, closed := strings.Cut(rest[1:], "}")
			if !closed {
				return "", used, fmt.Errorf("${ without its closing brace; write $${ for a literal one")
			}
			value, err := variable(inside, env)
			if err != nil {
				return "", used, err
			}
			b.WriteString(value)
			used, text = true, after
		default:
			b.WriteByte('$')
			text = rest
		}
	}
}

// variable evaluates what stands between the braces: NAME or NAME:-default.
func variable(inside string, env lookup) (string, error) {
	name, fallback, hasFallback := strings.Cut(inside, ":-")
	if !isVariableName(name) {
		return "", fmt.Errorf("${%s} does not name an environment variable; expected ${NAME} or ${NAME:-default}", inside)
	}
	value, set := env(name)
	switch {
	case hasFallback && value == "": // as in a shell, :- covers an empty value too
		return fallback, nil
	case !set:
		return "", fmt.Errorf("the environment variable %s is not set; set it, or give a default with ${%s:-default}", name, name)
	}
	return value, nil
}

func isVariableName(name string) bool {
	for i, r := range name {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}
