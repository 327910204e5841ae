package config

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// field is one key of a section of the file: where it goes, what it is when left out, and what it means. A section is a
// table of fields; the same table decodes the file, supplies the defaults and writes docs/config.md.
type field struct {
	key      string
	into     value
	def      string // the default as one would write it in the file; empty: none
	required bool
	doc      string // one or more sentences, in Markdown
}

// value reads one kind of thing from a YAML node.
type value struct {
	kind string // as the reference names it: duration
	want string // as an error asks for it: a duration such as 250ms, 5s or 2m
	// text parses a scalar, and a default. Its error is the reason only.
	text func(string) error
	// node reads something else than one scalar; n is nil when the key is absent. Exactly one of text and node is set.
	node func(d *decoder, n *yaml.Node, path string)
	// beneath describes nested sections for the reference: what is appended to the path, and the fields.
	beneath func() (suffix string, fields []field)
	item    string // of a mapping from names: the kind of its values
	secret  bool   // never shown, not even when it is wrong
}

func text(into *string) value {
	return value{kind: "text", want: "a text", text: func(s string) error {
		if s == "" {
			return errEmpty
		}
		*into = s
		return nil
	}}
}

var errEmpty = errors.New("it is empty")

func secret(into *Secret) value {
	return value{kind: "secret", want: "a secret, best given as ${NAME}", secret: true, text: func(s string) error {
		*into = NewSecret(s)
		return nil
	}}
}

func integer(into *int, low, high int) value {
	want := fmt.Sprintf("a whole number from %d to %d", low, high)
	return value{kind: "integer", want: want, text: func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("it is not a whole number")
		}
		if n < low || n > high {
			return fmt.Errorf("it is out of range")
		}
		*into = n
		return nil
	}}
}

func boolean(into *bool) value {
	return value{kind: "true or false", want: "true or false", text: func(s string) error {
		switch s {
		case "true", "yes", "on":
			*into = true
		case "false", "no", "off":
			*into = false
		default:
			return fmt.Errorf("it is neither")
		}
		return nil
	}}
}

func duration(into *time.Duration) value {
	return value{kind: "duration", want: "a duration such as 250ms, 5s, 2m or 7d", text: func(s string) (err error) {
		*into, err = parseDuration(s)
		return err
	}}
}

// period is a duration that must not be zero: whoever is given it takes zero for its own default.
func period(into *time.Duration) value {
	v := duration(into)
	v.text = func(s string) (err error) {
		if *into, err = parseDuration(s); err == nil && *into < time.Millisecond {
			return errors.New("it is less than 1ms")
		}
		return err
	}
	return v
}

func size(into *int64) value {
	return value{kind: "size", want: "a size such as 512kB, 16MB or 1GB", text: func(s string) (err error) {
		if *into, err = parseSize(s); err == nil && *into == 0 {
			return errors.New("it is zero")
		}
		return err
	}}
}

// host is where a server is, without its port.
func host(into *string) value {
	return value{kind: "host", want: "a host such as db1, 10.0.0.1 or /run/postgresql", text: func(s string) error {
		*into = s
		return parseHost(s)
	}}
}

func address(into *string) value {
	return value{kind: "host:port", want: "an address such as 127.0.0.1:6432", text: func(s string) error {
		*into = s
		return parseAddress(s)
	}}
}

// optionalAddress is an address or "off", which leaves an empty string.
func optionalAddress(into *string) value {
	return value{kind: "host:port or off", want: "an address such as 127.0.0.1:9632, or off", text: func(s string) error {
		if s == "off" || s == "false" {
			*into = ""
			return nil
		}
		*into = s
		return parseAddress(s)
	}}
}

func choice[T ~string](into *T, choices ...T) value {
	names := make([]string, len(choices))
	for i, c := range choices {
		names[i] = string(c)
	}
	return value{kind: strings.Join(names, ", "), want: oneOf(names), text: func(s string) error {
		if !slices.Contains(names, s) {
			return fmt.Errorf("it is none of them%s", didYouMean(s, names))
		}
		*into = T(s)
		return nil
	}}
}

// texts is a list of scalars; one scalar with commas is taken as such a list, so that ${BROKERS} can hold several.
// The items are not shown when they are wrong if they may hold a password.
func texts(into *[]string, kind, want string, secret bool, parse func(string) error) value {
	add := func(s string) error {
		if err := parse(s); err != nil {
			return err
		}
		*into = append(*into, s)
		return nil
	}
	item := value{kind: kind, want: want, secret: secret, text: func(s string) error {
		for part := range strings.SplitSeq(s, ",") {
			if err := add(strings.TrimSpace(part)); err != nil {
				return err
			}
		}
		return nil
	}}
	return value{kind: "list of " + kind, want: "a list, each " + want, node: func(d *decoder, n *yaml.Node, path string) {
		if n == nil {
			return
		}
		if n.Kind != yaml.SequenceNode {
			d.scalar(n, path, item)
			return
		}
		for i, child := range n.Content {
			d.value(child, fmt.Sprintf("%s[%d]", path, i), item)
		}
	}}
}

func addresses(into *[]string) value {
	return texts(into, "host:port", "an address such as 127.0.0.1:9092", false, parseAddress)
}

func urls(into *[]string) value {
	return texts(into, "URL", "a URL such as http://127.0.0.1:9200", true, func(s string) error {
		u, err := url.Parse(s)
		switch {
		case err != nil, u.Host == "":
			return fmt.Errorf("it is not a URL with a host")
		case u.Scheme != "http" && u.Scheme != "https":
			return fmt.Errorf("its scheme is neither http nor https")
		case u.User != nil:
			return fmt.Errorf("it holds a user or a password, which have keys of their own")
		}
		return nil
	})
}

func tableNames(into *[]string) value {
	return texts(into, "table", "a table such as orders or public.orders", false, checkTableName)
}

func tableName(into *string) value {
	return value{kind: "table", want: "a table such as orders or public.orders", text: func(s string) error {
		*into = s
		return checkTableName(s)
	}}
}

// checkTableName takes names as SQL has them without quotes, and any others too, as long as there are at most two parts.
func checkTableName(s string) error {
	parts := strings.Split(s, ".")
	if len(parts) > 2 || slices.Contains(parts, "") {
		return fmt.Errorf("it is not TABLE or SCHEMA.TABLE")
	}
	return nil
}

// section is a nested mapping that always exists, with its defaults where the file leaves it out.
func section(fields func() []field) value {
	return value{
		kind:    "section",
		want:    "a section",
		node:    func(d *decoder, n *yaml.Node, path string) { d.section(n, path, fields()) },
		beneath: func() (string, []field) { return "", fields() },
	}
}

// optional is a nested mapping that stays nil when the file leaves it out.
func optional[T any](into **T, fields func(*T) []field) value {
	return value{
		kind: "section",
		want: "a section",
		node: func(d *decoder, n *yaml.Node, path string) {
			if n == nil {
				return
			}
			*into = new(T)
			d.section(n, path, fields(*into))
		},
		beneath: func() (string, []field) { return "", fields(new(T)) },
	}
}

// list is a sequence of mappings.
func list[T any](into *[]T, fields func(*T) []field) value {
	return value{
		kind: "list",
		want: "a list, one dash for each",
		node: func(d *decoder, n *yaml.Node, path string) {
			if n == nil || d.null(n) {
				return
			}
			if n.Kind != yaml.SequenceNode {
				d.wrong(n, path, "a list, one dash for each")
				return
			}
			*into = make([]T, len(n.Content))
			for i, child := range n.Content {
				d.value(child, fmt.Sprintf("%s[%d]", path, i), section(func() []field { return fields(&(*into)[i]) }))
			}
		},
		beneath: func() (string, []field) { return "[]", fields(new(T)) },
	}
}

// named is a mapping from names to values of one kind, kept in the file's order.
func named[T any](into *[]T, each func(item *T, name string) value) value {
	return value{
		kind: "mapping",
		want: "a mapping from names",
		item: each(new(T), "NAME").kind,
		node: func(d *decoder, n *yaml.Node, path string) {
			if n == nil || d.null(n) {
				return
			}
			if n.Kind != yaml.MappingNode {
				d.wrong(n, path, "a mapping from names")
				return
			}
			*into = make([]T, 0, len(n.Content)/2)
			for key, child := range d.pairs(n, path) {
				*into = append(*into, *new(T))
				d.value(child, path+"."+key, each(&(*into)[len(*into)-1], key))
			}
		},
		beneath: func() (string, []field) {
			v := each(new(T), "NAME")
			if v.beneath == nil {
				return ".NAME", nil
			}
			suffix, fields := v.beneath()
			return ".NAME" + suffix, fields
		},
	}
}

// wordOr is either one fixed word or a section: reference, or {key: customer_id}.
func wordOr(word string, set func(), fields func() []field) value {
	return value{
		kind: "`" + word + "` or section",
		want: word + ", or a section",
		node: func(d *decoder, n *yaml.Node, path string) {
			if n.Kind != yaml.ScalarNode {
				d.section(n, path, fields())
				return
			}
			d.scalar(n, path, value{want: word + ", or a section", text: func(s string) error {
				if s != word {
					return fmt.Errorf("it is neither%s", didYouMean(s, []string{word}))
				}
				set()
				return nil
			}})
		},
		beneath: func() (string, []field) { return "", fields() },
	}
}

// free is a mapping that somebody else defines; environment variables are expanded in its texts.
func free(into *map[string]any, want string) value {
	return value{kind: "mapping", want: want, node: func(d *decoder, n *yaml.Node, path string) {
		if n == nil || d.null(n) {
			return
		}
		if n.Kind != yaml.MappingNode {
			d.wrong(n, path, want)
			return
		}
		*into, _ = d.any(n, path, 0).(map[string]any)
	}}
}
