package router

import "github.com/tidemarkdb/tidemark/sharding"

// Copy splits the lines of a COPY FROM STDIN in text format. It is immutable and safe for concurrent use.
type Copy struct {
	Schema, Table string
	Columns       []string // as the data carries them; never empty
	Key           int      // index of the key column in Columns; -1: reference table, each line goes to every shard
	Type          sharding.KeyType
	Delimiter     byte
	Null          string // the marker of NULL, `\N` unless given

	shards *sharding.Map
	utf8   bool
}

// Place is the shard (index into the map's shards) of one line: a row without its newline. It must not be called
// when Key is -1, nor for the end marker `\.`. Errors are *Refusal: too few fields, a NULL key, or a key that is not
// of its type.
func (c *Copy) Place(line []byte) (int, error) {
	return 0, &Refusal{Code: "0A000", Message: "COPY into a sharded table is not supported"}
}
