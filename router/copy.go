package router

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/tidemarkdb/tidemark/internal/sql"
	"github.com/tidemarkdb/tidemark/sharding"
)

// Copy splits the lines of a COPY FROM STDIN in text format. It is immutable and safe for concurrent use.
type Copy struct {
	Schema, Table string
	Columns       []string // as the data carries them; never empty for a sharded table
	Key           int      // index of the key column in Columns; -1: reference table, all data goes to every shard as it comes
	Type          sharding.KeyType
	Delimiter     byte
	Null          string // the marker of NULL, `\N` unless given

	shards *sharding.Map
	max    int
	utf8   bool
}

// Place is the shard (index into the map's shards) of one line: a row without its newline. It must not be called
// when Key is -1, nor for the end marker `\.`. Errors are *Refusal: too few fields, a NULL key, or a key that is not
// of its type.
func (c *Copy) Place(line []byte) (int, error) {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	field, _, ok := c.field(line)
	if !ok {
		return 0, &Refusal{
			Code: "22P04", Message: fmt.Sprintf("missing data for column \"%s\"", c.Columns[c.Key]),
			Detail: fmt.Sprintf("COPY %s: the line has fewer fields than its columns.", c.Table),
		}
	}
	if string(field) == c.Null {
		return 0, &Refusal{Code: "23502", Message: fmt.Sprintf("null value in shard key \"%s\" of COPY %s", c.Columns[c.Key], c.Table), Detail: "A row without a key belongs to no shard."}
	}
	var buf [128]byte
	value := field
	if bytes.IndexByte(field, '\\') >= 0 {
		value = unescapeCopy(buf[:0], field)
	}
	if c.Type == sharding.Text || c.Type == sharding.BPChar {
		if !c.utf8 && !ascii(value) {
			return 0, refuse("this shard key in COPY is not supported", "Its client_encoding is not UTF8, so the server would store other bytes.", "Use client_encoding UTF8.")
		}
		if c.max > 0 && utf8.RuneCount(value) > c.max {
			return 0, &Refusal{Code: "22001", Message: fmt.Sprintf("value too long for type character varying(%d)", c.max)}
		}
	}
	shard, err := c.shards.Place(c.Type, value, sharding.TextFormat)
	if err != nil {
		code := notSupported
		if ve, ok := err.(*sharding.ValueError); ok { //nolint:errorlint // Place returns it unwrapped
			code = ve.Code
		}
		return 0, &Refusal{Code: code, Message: err.Error(), Detail: fmt.Sprintf("It is the shard key \"%s\" of COPY %s.", c.Columns[c.Key], c.Table)}
	}
	return shard, nil
}

// HasKey says whether the key's field is whole in part, the beginning of a line whose end has not come.
func (c *Copy) HasKey(part []byte) bool {
	_, rest, ok := c.field(part)
	return ok && len(rest) > 0
}

// Row is the length of the first row of data, newline included; 0 when data does not hold a whole row yet. A newline
// behind a backslash belongs to the row.
func (c *Copy) Row(data []byte) int {
	from := 0
	for {
		i := bytes.IndexByte(data[from:], '\n')
		if i < 0 {
			return 0
		}
		end := from + i
		slashes := 0
		for end-slashes > 0 && data[end-slashes-1] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return end + 1
		}
		from = end + 1
	}
}

// field is the key's field, still escaped, and what follows it.
func (c *Copy) field(line []byte) (field, rest []byte, ok bool) {
	for i := 0; ; i++ {
		end := 0
		for end < len(line) && line[end] != c.Delimiter {
			if line[end] == '\\' {
				end++
			}
			end++
		}
		end = min(end, len(line))
		if i == c.Key {
			return line[:end], line[end:], true
		}
		if end == len(line) {
			return nil, nil, false
		}
		line = line[end+1:]
	}
}

// unescapeCopy undoes the backslashes of COPY's text format (CopyReadAttributesText in copyfromparse.c).
func unescapeCopy(out, s []byte) []byte {
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			out = append(out, s[i])
			continue
		}
		i++
		switch c := s[i]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'v':
			out = append(out, '\v')
		case '0', '1', '2', '3', '4', '5', '6', '7':
			v := int(c - '0')
			for n := 0; n < 2 && i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '7'; n++ {
				i++
				v = v*8 + int(s[i]-'0')
			}
			out = append(out, byte(v))
		case 'x':
			v, n := 0, 0
			for n < 2 && i+1 < len(s) && hexDigit(s[i+1]) >= 0 {
				i++
				v = v*16 + hexDigit(s[i])
				n++
			}
			if n == 0 {
				out = append(out, 'x')
			} else {
				out = append(out, byte(v))
			}
		default:
			out = append(out, c)
		}
	}
	return out
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func (s *statement) copyTo() *compiled {
	if s.f.Copy.Query {
		o := s.query()
		if !s.f.Copy.Stdio {
			return s.copyFile(o.flags)
		}
		return s.compiled(o)
	}
	rel := &s.rels[0]
	switch {
	case !s.f.Copy.Stdio:
		return s.copyFile(s.leaves())
	case rel.place == split && len(s.r.m.Shards()) > 1:
		return s.fixed(refuse(fmt.Sprintf("COPY of sharded table %s TO is not supported", rel.name), "The rows of its shards would have to be merged into one stream.",
			fmt.Sprintf("Use COPY (SELECT ... WHERE %s = ...) TO STDOUT for one key, or a plain SELECT.", rel.table.Column)))
	case rel.place == model || rel.place == derived && len(s.all()) > 1:
		return s.fixed(refuse(fmt.Sprintf("COPY of %s TO is not supported", rel.name), "It is not a table.", "Use a SELECT."))
	case rel.place == everywhere || rel.place == anywhere:
		if ref := s.needs(calls{}, where{shard: -1}); ref != nil {
			return s.fixed(ref)
		}
		p := &Plan{Kind: AnyShard, Access: Read, Flags: s.leaves(), Shards: s.all(), Reason: fmt.Sprintf("reference table %s is on every shard", rel.name)}
		if p.Flags != 0 {
			p.Kind, p.Shards = Route, s.r.oneShard[s.r.m.Default()]
		}
		return s.fixedPlan(p)
	}
	if ref := s.needs(calls{}, where{shard: rel.shard}); ref != nil {
		return s.fixed(ref)
	}
	return s.fixedPlan(&Plan{Kind: Route, Access: Read, Flags: s.leaves(), Shards: s.r.oneShard[rel.shard], Reason: fmt.Sprintf("%s lives on shard %s", rel.name, s.shardName(rel.shard))})
}

// copyFile plans a COPY whose data lies where the server runs: of a single shard that is its primary, whatever the direction.
func (s *statement) copyFile(flags Flags) *compiled {
	for i := range s.rels {
		if s.rels[i].place == model {
			return s.fixed(refuse(fmt.Sprintf("COPY of %s is not supported", s.rels[i].name), "It is not a table.", ""))
		}
	}
	if len(s.all()) == 1 {
		return s.fixedPlan(&Plan{Kind: Route, Flags: flags | Writes, Shards: s.all(), Reason: "the file lies on the only shard"})
	}
	return s.fixed(refuse("COPY with a file or program of the server is not supported", "There are many servers, and a file lies on one of them.", `Use COPY ... FROM STDIN or TO STDOUT; psql's \copy does.`))
}

func (s *statement) copyFrom() *compiled {
	rel := &s.rels[0]
	c := s.f.Copy
	if !c.Stdio {
		return s.copyFile(s.leaves())
	}
	at := where{shard: -1, all: rel.place == everywhere}
	if rel.place == onOne {
		at.shard = rel.shard
	}
	if ref := s.needs(calls{}, at); ref != nil && rel.place != derived {
		return s.fixed(ref)
	}
	flags := Writes | s.leaves()
	if len(s.all()) == 1 && rel.place != model { // a view may have a trigger that takes the rows
		return s.fixedPlan(&Plan{Kind: Route, Flags: flags, Shards: s.all(), Reason: "the only shard"})
	}
	switch rel.place {
	case model, derived, anywhere:
		return s.fixed(refuse(fmt.Sprintf("COPY into %s is not supported", rel.name), "It is not a table that can be written to.", ""))
	case everywhere:
		for _, col := range rel.columns {
			if col.Volatile && len(c.Columns) > 0 && !contains(c.Columns, col.Name) {
				return s.fixed(refuse(fmt.Sprintf("COPY into reference table %s without column %s is not supported", rel.name, col.Name),
					"Each shard would compute its own default for it, with different results.", "Give the column in the data."))
			}
		}
		return s.fixedPlan(&Plan{
			Kind: CopyIn, Flags: flags, Shards: s.all(), Reason: fmt.Sprintf("reference table %s is written on every shard", rel.name),
			Copy: &Copy{Schema: rel.name.Schema, Table: rel.name.Name, Columns: c.Columns, Key: -1, shards: s.r.m},
		})
	case onOne:
		return s.fixedPlan(&Plan{Kind: Route, Flags: flags, Shards: s.r.oneShard[rel.shard], Reason: fmt.Sprintf("%s lives on shard %s", rel.name, s.shardName(rel.shard))})
	}
	if why := rel.unfit(); why != "" {
		return s.fixed(&Refusal{Code: "55000", Message: "table " + rel.name.String() + " cannot be routed", Detail: why + ".", Hint: "Correct the shard map or the table."})
	}
	out := &Copy{
		Schema: rel.name.Schema, Table: rel.name.Name, Columns: c.Columns, Key: -1, Type: rel.table.Type,
		Delimiter: '\t', Null: `\N`, shards: s.r.m, utf8: s.ses.utf8,
	}
	if len(out.Columns) == 0 {
		for _, col := range rel.columns {
			if !col.Generated {
				out.Columns = append(out.Columns, col.Name)
			}
		}
	}
	for i, name := range out.Columns {
		if name == rel.table.Column {
			out.Key = i
		}
	}
	if rel.key != nil && rel.key.TypeMod > 4 && (out.Type == sharding.Text || out.Type == sharding.BPChar) {
		out.max = int(rel.key.TypeMod) - 4
	}
	if ref := s.copyOptions(rel, c, out); ref != nil {
		return s.fixed(ref)
	}
	if out.Key < 0 {
		return s.fixed(refuse(fmt.Sprintf("COPY into %s without its shard key %s is not supported", rel.name, rel.table.Column),
			"Each line goes to the shard of its key, and the data does not carry it (or the table's columns are not known).", "List the columns of the data, the key among them."))
	}
	return s.fixedPlan(&Plan{Kind: CopyIn, Flags: flags, Shards: s.all(), Copy: out, Reason: fmt.Sprintf("each line goes to the shard of its %s", rel.table.Column)})
}

// copyOptions takes the options that keep one row on one line with tabs or the like between fields.
func (s *statement) copyOptions(rel *relation, c *sql.Copy, out *Copy) *Refusal {
	no := func(what string) *Refusal {
		return refuse(fmt.Sprintf("COPY into sharded table %s with %s is not supported", rel.name, what), "Each line goes to the shard of its key, which Tidemark reads from the text format.", "Use the text format (the default) with options DELIMITER and NULL at most.")
	}
	for _, o := range c.Options {
		switch o.Name {
		case "format":
			if strings.ToLower(o.Value) != "text" {
				return no("format " + o.Value)
			}
		case "delimiter":
			if len(o.Value) != 1 || strings.ContainsAny(o.Value, "\\\r\n.abcdefghijklmnopqrstuvwxyz0123456789") {
				return &Refusal{Code: "22023", Message: fmt.Sprintf("COPY delimiter \"%s\" is not allowed", o.Value)}
			}
			out.Delimiter = o.Value[0]
		case "null":
			out.Null = o.Value
		case "encoding":
			if e := strings.ToUpper(strings.ReplaceAll(o.Value, "-", "")); e != "UTF8" {
				return no("encoding " + o.Value)
			}
			out.utf8 = true
		case "freeze":
			if v := strings.ToLower(o.Value); v != "false" && v != "off" && v != "0" {
				return no("FREEZE")
			}
		default:
			return no("option " + strings.ToUpper(o.Name))
		}
	}
	return nil
}
