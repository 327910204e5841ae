package config

import (
	"fmt"
	"strings"

	"github.com/tidemarkdb/tidemark/sharding"
)

// ShardMap is the map that the file describes. Its shards are in the file's order.
func (c *Config) ShardMap() (*sharding.Map, error) {
	def := sharding.Definition{Version: 1, Buckets: c.Sharding.Buckets, Default: c.Sharding.DefaultShard}
	for _, s := range c.Shards {
		def.Shards = append(def.Shards, sharding.Shard{Name: s.Name, Buckets: s.Ranges})
	}
	for _, t := range c.Sharding.Tables {
		schema, name := SplitTable(t.Name)
		table := sharding.Table{Schema: schema, Name: name, Kind: sharding.Local, Shard: t.Shard}
		switch {
		case t.Reference:
			table.Kind = sharding.Reference
		case t.Key != "":
			table.Kind, table.Column, table.Type = sharding.Sharded, t.Key, t.Type
		}
		def.Tables = append(def.Tables, table)
	}
	m, err := sharding.New(def)
	if err != nil {
		return nil, fmt.Errorf("%s: sharding: %w", c.File, err)
	}
	return m, nil
}

// SplitTable splits a table's name as the file has it into schema and name; the schema is public unless given.
func SplitTable(text string) (schema, name string) {
	if schema, name, ok := strings.Cut(text, "."); ok && schema != "" {
		return schema, name
	}
	return "public", text
}

func keyType(into *sharding.KeyType) value {
	names := sharding.KeyTypeNames()
	return value{kind: strings.Join(names, ", "), want: oneOf(names), text: func(s string) (err error) {
		if *into, err = sharding.ParseKeyType(s); err != nil {
			return fmt.Errorf("it is none of them%s", didYouMean(s, names))
		}
		return nil
	}}
}
