package cqrs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidemarkdb/tidemark/replication"
)

// MaxRowID is the longest row id in bytes: Elasticsearch's limit for _id.
const MaxRowID = 512

const hashedID = "sha256:"

// RowID is a row's primary key as one string, the name of its document in every store. One column gives its canonical
// text; several are joined by "|", with "|" and "\" in them escaped, so that ids of different keys differ. Longer
// than MaxRowID it is a hash (and so is whatever looks like a hash). key gives a column's text form, nil for NULL.
func RowID(cols []Column, key func(c Column) ([]byte, error)) (string, error) {
	var parts []string
	for _, c := range cols {
		if !c.Key {
			continue
		}
		text, err := key(c)
		if err != nil {
			return "", err
		}
		if text == nil {
			return "", fmt.Errorf("key column %s is missing", c.Name)
		}
		part, err := c.Canonical(string(text))
		if err != nil {
			return "", err
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return "", fmt.Errorf("no key columns")
	}
	id := parts[0]
	if len(parts) > 1 {
		escape := strings.NewReplacer(`\`, `\\`, `|`, `\|`)
		for i := range parts {
			parts[i] = escape.Replace(parts[i])
		}
		id = strings.Join(parts, "|")
	}
	if id == "" {
		return hashedID, nil // stores refuse an empty name; no other id is the bare word
	}
	if len(id) > MaxRowID || strings.HasPrefix(id, hashedID) {
		sum := sha256.Sum256([]byte(id))
		return hashedID + hex.EncodeToString(sum[:]), nil
	}
	return id, nil
}

// LookupIDs returns the ids of the only rows that can satisfy where, when it fixes the whole key by = (or by IN, for
// a key of one column). The rows found must still pass the whole filter. ok is false when where does not.
func LookupIDs(cols []Column, where []Predicate) (ids []string, ok bool) {
	var keys []Column
	for _, c := range cols {
		if c.Key {
			keys = append(keys, c)
		}
	}
	fixed := map[string][]string{}
	for _, p := range where {
		if p.Op == Eq || p.Op == In {
			if _, have := fixed[p.Column]; !have {
				fixed[p.Column] = p.Values
			}
		}
	}
	for _, c := range keys {
		v, have := fixed[c.Name]
		if !have || c.Class() == Opaque || (len(v) != 1 && len(keys) > 1) {
			return nil, false
		}
	}
	if len(keys) == 0 {
		return nil, false
	}
	seen := map[string]bool{}
	for i := range fixed[keys[0].Name] {
		id, err := RowID(cols, func(c Column) ([]byte, error) {
			if len(keys) == 1 {
				return []byte(fixed[c.Name][i]), nil
			}
			return []byte(fixed[c.Name][0]), nil
		})
		if err != nil { // 1.5 for an integer key: nothing equals it, but that is for the filter to say
			return nil, false
		}
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids, true
}

// LookupKey is the record key (KeyJSON) of the only row that can satisfy where, when where fixes each key column by =. It is empty where it
// does not, and for types whose values may be spelled in several ways, so that a key that is found is always the record's.
func LookupKey(cols []Column, where []Predicate) string {
	var key Row
	for _, c := range cols {
		if !c.Key {
			continue
		}
		text, ok := fixedText(c, where)
		if !ok {
			return ""
		}
		value, err := replication.JSON(replication.Column{Name: c.Name, TypeOID: c.OID, Base: c.OID}, replication.Value{Bytes: []byte(text)})
		if err != nil {
			return ""
		}
		key = append(key, Field{Name: c.Name, Value: value})
	}
	if len(key) == 0 {
		return ""
	}
	return KeyJSON(key)
}

// fixedText is the one text of the one value that where leaves a column.
func fixedText(c Column, where []Predicate) (string, bool) {
	for _, p := range where {
		if p.Column != c.Name || p.Op != Eq || len(p.Values) != 1 {
			continue
		}
		switch c.OID {
		case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.UUIDOID:
			text, err := c.Canonical(p.Values[0])
			return text, err == nil
		case pgtype.TextOID, pgtype.VarcharOID:
			return p.Values[0], true
		}
		return "", false
	}
	return "", false
}
