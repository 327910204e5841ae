package config

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Mappings that no field describes are bounded, because aliases let few lines stand for very many values.
const (
	maxFreeDepth  = 32
	maxFreeValues = 10_000
)

// decoder fills in a Config from YAML nodes. It goes on after a problem, so that one run shows them all.
type decoder struct {
	file     string
	env      lookup
	problems Problems
	at       map[string]*yaml.Node // where each path that was present stands
	free     int                   // values read so far that no field describes
	values   map[string]*recorded
}

// document parses src into its only document's root; nil for an empty file.
func (d *decoder) document(src io.Reader) *yaml.Node {
	dec := yaml.NewDecoder(src)
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		d.syntax(err)
		return nil
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		d.add(&second, "", "a second YAML document begins here; expected one document")
	case !errors.Is(err, io.EOF):
		d.syntax(err)
	}
	return doc.Content[0]
}

// syntax reports an error of the YAML parser: where it was noticed, and where what is broken there begins.
func (d *decoder) syntax(err error) {
	p := Problem{File: d.file, Message: "this is not YAML: " + err.Error()}
	if e := (*yaml.LoadError)(nil); errors.As(err, &e) {
		p.Message, p.Line, p.Column = "this is not YAML: "+e.Message, e.Mark.Line, e.Mark.Column
		if begun := e.ContextMark.Line; begun > 0 && begun < e.Mark.Line {
			p.Message += fmt.Sprintf(", %s that begins in line %d", e.ContextMsg, begun)
		}
	}
	d.problems = append(d.problems, p)
}

// add reports a problem at a node; n may be nil.
func (d *decoder) add(n *yaml.Node, path, format string, args ...any) {
	p := Problem{File: d.file, Key: path, Message: fmt.Sprintf(format, args...)}
	if n != nil {
		p.Line, p.Column = n.Line, n.Column
	}
	d.problems = append(d.problems, p)
}

// addAt reports a problem at a path, or at the nearest enclosing path that is in the file.
func (d *decoder) addAt(path, format string, args ...any) {
	for at := path; ; {
		if n, ok := d.at[at]; ok {
			d.add(n, path, format, args...)
			return
		}
		cut := strings.LastIndexAny(at, ".[")
		if cut < 0 {
			d.add(d.at[""], path, format, args...)
			return
		}
		at = at[:cut]
	}
}

func (d *decoder) wrong(n *yaml.Node, path, want string) {
	found := map[yaml.Kind]string{yaml.MappingNode: "a section", yaml.SequenceNode: "a list", yaml.ScalarNode: "a single value"}[n.Kind]
	d.add(n, path, "found %s, expected %s", found, want)
}

// null says whether a key has nothing behind it, as when all its lines are commented out.
func (d *decoder) null(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// value reads one value from n.
func (d *decoder) value(n *yaml.Node, path string, v value) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	d.at[path] = n
	if v.node != nil {
		v.node(d, n, path)
		return
	}
	d.scalar(n, path, v)
}

// scalar expands and parses a single value.
func (d *decoder) scalar(n *yaml.Node, path string, v value) {
	switch {
	case n.Kind != yaml.ScalarNode:
		d.wrong(n, path, v.want)
		return
	case d.null(n):
		d.add(n, path, "it has no value; expected %s", v.want)
		return
	}
	text, used, err := expand(n.Value, d.env)
	if err != nil {
		d.add(n, path, "%v", err)
		return
	}
	if err := v.text(text); err != nil {
		shown := strconv.Quote(n.Value)
		switch {
		case v.secret, strings.Contains(n.Value, "@"): // a password may stand before the @ of an address
			shown = "the value"
		case used:
			shown = "the value of " + n.Value // what the variable holds may be secret
			err = nil
		}
		d.add(n, path, "%s does not fit%s; expected %s", shown, because(err), v.want)
	}
	d.record(path, text, v.secret, n.Line)
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// section reads a mapping by its table of fields. A nil node gives the defaults.
func (d *decoder) section(n *yaml.Node, path string, fields []field) {
	if n != nil && n.Kind != yaml.MappingNode && !d.null(n) {
		d.wrong(n, path, "a section with the keys "+strings.Join(keys(fields), ", "))
		return
	}
	seen := map[string]bool{}
	if n != nil {
		for key, child := range d.pairs(n, path) {
			i := slices.IndexFunc(fields, func(f field) bool { return f.key == key })
			switch {
			case i >= 0:
				seen[key] = true
				d.value(child, join(path, key), fields[i].into)
			case key == "<<":
				d.add(child, path, "merge keys (<<) are not supported; repeat the keys, or use an alias for a whole value")
			case path == "" && strings.HasPrefix(key, "x-"): // a place for anchors
			default:
				hint := didYouMean(key, keys(fields))
				if hint == "" {
					hint = "; expected one of " + strings.Join(keys(fields), ", ")
				}
				d.add(d.keyNode(n, key), join(path, key), "unknown key%s", hint)
			}
		}
	}
	for _, f := range fields {
		switch {
		case seen[f.key]:
		case f.required:
			d.addAt(join(path, f.key), "it is missing; expected %s: %s", f.into.want, firstSentence(f.doc))
		case f.def != "":
			if err := f.into.text(f.def); err != nil {
				d.addAt(join(path, f.key), "the default %q does not fit: %v", f.def, err)
			}
			d.record(join(path, f.key), f.def, false, 0)
		case f.into.node != nil && f.into.beneath != nil && f.into.kind == "section":
			f.into.node(d, nil, join(path, f.key))
		}
	}
}

// pairs yields a mapping's keys and values, and reports repeated keys.
func (d *decoder) pairs(n *yaml.Node, path string) iter.Seq2[string, *yaml.Node] {
	return func(yield func(string, *yaml.Node) bool) {
		first := map[string]int{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Kind != yaml.ScalarNode {
				d.add(key, path, "found a key that is not a name")
				continue
			}
			if line, ok := first[key.Value]; ok {
				d.add(key, join(path, key.Value), "the key is given twice; first at line %d", line)
				continue
			}
			first[key.Value] = key.Line
			if !yield(key.Value, n.Content[i+1]) {
				return
			}
		}
	}
}

func (d *decoder) keyNode(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i]
		}
	}
	return n
}

// any turns a node that no field describes into maps, slices and scalars.
func (d *decoder) any(n *yaml.Node, path string, depth int) any {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch d.free++; {
	case d.free == maxFreeValues+1:
		d.add(n, path, "more than %d values in the free-form parts of one file", maxFreeValues)
		return nil
	case d.free > maxFreeValues: // said already
		return nil
	case depth > maxFreeDepth:
		d.add(n, path, "nested deeper than %d levels", maxFreeDepth)
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		out := make(map[string]any, len(n.Content)/2)
		for key, child := range d.pairs(n, path) {
			out[key] = d.any(child, path+"."+key, depth+1)
		}
		return out
	case yaml.SequenceNode:
		out := make([]any, len(n.Content))
		for i, child := range n.Content {
			out[i] = d.any(child, fmt.Sprintf("%s[%d]", path, i), depth+1)
		}
		return out
	}
	if n.Tag == "!!str" {
		text, _, err := expand(n.Value, d.env)
		if err != nil {
			d.add(n, path, "%v", err)
		}
		d.record(path, text, false, n.Line)
		return text
	}
	var out any
	if err := n.Decode(&out); err != nil {
		d.add(n, path, "%v", err)
	}
	d.record(path, n.Value, false, n.Line)
	return out
}

func firstSentence(doc string) string {
	sentence, _, _ := strings.Cut(doc, ". ")
	return strings.TrimSuffix(sentence, ".")
}

func keys(fields []field) []string {
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = f.key
	}
	return out
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
