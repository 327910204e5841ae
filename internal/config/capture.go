package config

import "github.com/tidemarkdb/tidemark/replication"

// CaptureOf is what capture of one shard takes: the captured tables that have rows of their own there. Reference tables, equal
// everywhere, and tables outside the map are captured from the one shard that has them. With no table there is nothing to capture.
func (c *Config) CaptureOf(s Shard) (cfg replication.Config, some bool) {
	capture := c.Capture
	cfg = replication.Config{
		Shard: s.Name, ConnString: c.PrimaryConnString(s),
		Slot: capture.Slot, Publication: capture.Publication, Failover: capture.Failover,
		Resnapshot: capture.Resnapshot, FixReplicaIdentity: capture.FixReplicaIdentity,
		SnapshotWorkers: capture.SnapshotWorkers, TxMemory: int(capture.TxMemory), TempDir: c.path(capture.SpillDir),
	}
	cfg.Tables = c.capturedFrom(s)
	if len(c.Shards) > 1 {
		cfg.ShardKeys = c.shardKeys(cfg.Tables)
	}
	return cfg, len(cfg.Tables) > 0
}

// capturedFrom lists the tables that are captured from a shard.
func (c *Config) capturedFrom(s Shard) []string {
	var tables []string
	for _, table := range c.Capture.Tables {
		if home := c.home(table); home == "" || home == s.Name {
			tables = append(tables, table)
		}
	}
	return tables
}

// shardKeys are the key columns of those tables that are split.
func (c *Config) shardKeys(tables []string) map[string]string {
	keys := map[string]string{}
	for _, t := range c.Sharding.Tables {
		for _, name := range tables {
			if t.Key != "" && qualified(t.Name) == qualified(name) {
				keys[name] = t.Key
			}
		}
	}
	return keys
}

// home is the one shard that a table is captured from; empty when every shard has a part.
func (c *Config) home(table string) string {
	for _, t := range c.Sharding.Tables {
		switch {
		case qualified(t.Name) != qualified(table):
		case t.Key != "":
			return ""
		case t.Shard != "":
			return t.Shard
		}
	}
	return c.Sharding.DefaultShard
}
