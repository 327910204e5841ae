package sharding

import (
	"fmt"
	"strings"
)

// KeyType is the type of a shard key column. The zero value is none.
type KeyType uint8

// The key types. Text stands for text and varchar, which hash alike; only deterministic collations are right for it.
const (
	Int2 KeyType = iota + 1
	Int4
	Int8
	Text
	BPChar
	UUID
	Bytea
	Date
	Timestamp
	Timestamptz
	Numeric
	Bool
	OID
	Char // "char", one byte
)

// Type OIDs of pg_type.dat.
const (
	oidBool        = 16
	oidBytea       = 17
	oidChar        = 18
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidText        = 25
	oidOID         = 26
	oidBPChar      = 1042
	oidVarchar     = 1043
	oidDate        = 1082
	oidTimestamp   = 1114
	oidTimestamptz = 1184
	oidNumeric     = 1700
	oidUUID        = 2950
)

var keyTypes = [...]struct {
	name string // as format_type writes it
	oid  uint32
}{
	Int2: {"smallint", oidInt2}, Int4: {"integer", oidInt4}, Int8: {"bigint", oidInt8}, Text: {"text", oidText},
	BPChar: {"character", oidBPChar}, UUID: {"uuid", oidUUID}, Bytea: {"bytea", oidBytea}, Date: {"date", oidDate},
	Timestamp: {"timestamp without time zone", oidTimestamp}, Timestamptz: {"timestamp with time zone", oidTimestamptz},
	Numeric: {"numeric", oidNumeric}, Bool: {"boolean", oidBool}, OID: {"oid", oidOID}, Char: {`"char"`, oidChar},
}

var keyTypeAliases = map[string]KeyType{
	"int2": Int2, "int4": Int4, "int": Int4, "int8": Int8, "varchar": Text, "character varying": Text, "bpchar": BPChar,
	"char": BPChar, "timestamp": Timestamp, "timestamptz": Timestamptz, "decimal": Numeric, "bool": Bool,
}

// Valid says whether t is one of the key types.
func (t KeyType) Valid() bool { return t > 0 && int(t) < len(keyTypes) }

// String is PostgreSQL's own name of the type, as format_type writes it.
func (t KeyType) String() string {
	if !t.Valid() {
		return "unknown"
	}
	return keyTypes[t].name
}

// OID is the type's OID in pg_type; text for Text.
func (t KeyType) OID() uint32 {
	if !t.Valid() {
		return 0
	}
	return keyTypes[t].oid
}

// KeyTypeByOID finds the key type of a column by its type's OID; ok is false for types that cannot be keys.
func KeyTypeByOID(oid uint32) (t KeyType, ok bool) {
	if oid == oidVarchar {
		return Text, true
	}
	for i := range keyTypes {
		if keyTypes[i].oid == oid && oid != 0 {
			return KeyType(i), true
		}
	}
	return 0, false
}

// ParseKeyType reads a type name as people write it in SQL or in YAML: "bigint", "int8", "varchar", "uuid".
func ParseKeyType(name string) (KeyType, error) {
	n := strings.Join(strings.Fields(strings.ToLower(name)), " ")
	if n == `"char"` {
		return Char, nil
	}
	if t, ok := keyTypeAliases[n]; ok {
		return t, nil
	}
	for i := range keyTypes {
		if keyTypes[i].name == n && n != "" {
			return KeyType(i), nil
		}
	}
	return 0, fmt.Errorf("type %q cannot be a shard key; one of %s can", name, strings.Join(KeyTypeNames(), ", "))
}

// KeyTypeNames lists the types that can be shard keys.
func KeyTypeNames() []string {
	var names []string
	for _, t := range keyTypes[1:] {
		names = append(names, t.name)
	}
	return names
}
