package router

import "strings"

// Which tables and functions a text uses PostgreSQL does not record. So every word of it counts that is the name of one. That errs on
// the side of too much, and does not see names that are put together at run time (see docs/limits.md).

// words calls each with the words of a text that fold has made one case of, and with what stands in double quotes and is no word. way
// says what is done with it if it is the name of a relation: INSERT INTO, UPDATE, DELETE FROM, MERGE INTO, TRUNCATE, COPY or REFRESH
// MATERIALIZED VIEW stands before it.
func words(text string, each func(word string, way Way)) {
	var before [4]string // the latest last
	last := Reading
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case wordByte(c):
			from := i
			for i < len(text) && wordByte(text[i]) {
				i++
			}
			last = wayOf(before)
			each(text[from:i], last)
			before = [4]string{before[1], before[2], before[3], text[from:i]}
			continue
		case c == '.' && before[3] != "": // a schema: what counts stands before it
			before = [4]string{"", before[0], before[1], before[2]}
		case c == ',' && last == Truncating: // TRUNCATE a, b
			before[3] = "truncate"
		case c == '"':
			rest := text[i+1 : min(len(text), i+2+maxName)]
			if end := strings.IndexByte(rest, '"'); end > 0 && !word(rest[:end]) {
				each(rest[:end], wayOf(before))
			}
		}
		i++
	}
}

// maxName is the greatest length of a name (NAMEDATALEN).
const maxName = 63

func wayOf(b [4]string) Way {
	for b[3] == "only" || b[3] == "table" || b[3] == "concurrently" {
		b = [4]string{"", b[0], b[1], b[2]}
	}
	switch b[3] {
	case "into":
		if b[2] == "insert" || b[2] == "merge" {
			return Writing
		}
	case "from":
		if b[2] == "delete" {
			return Writing
		}
	case "view":
		if b[2] == "materialized" && b[1] == "refresh" {
			return Writing
		}
	case "update", "copy":
		return Writing
	case "truncate":
		return Truncating
	}
	return Reading
}

func wordByte(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= '0' && b <= '9' || b == '_' || b == '$' || b >= 0x80
}

func word(s string) bool {
	for i := range len(s) {
		if !wordByte(s[i]) {
			return false
		}
	}
	return true
}

// fold makes one case of a text or a name of the catalog, so that a name is found however it is written.
func fold(text string) string { return strings.ToLower(text) }

// rough is fold for the encodings that are not the catalog's: what is not ASCII is known to be there, not what it is.
func rough(text string) string {
	out := make([]byte, 0, len(text))
	for i := range len(text) {
		switch c := text[i]; {
		case c < 0x80:
			out = append(out, c)
		case len(out) == 0 || out[len(out)-1] < 0x80:
			out = append(out, 0x80)
		}
	}
	return fold(string(out))
}
