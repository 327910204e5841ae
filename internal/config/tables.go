package config

import (
	"strconv"
	"time"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/cqrs/kafka"
	"github.com/tidemarkdb/tidemark/sharding"
)

// Sharding says how tables are spread.
type Sharding struct {
	Buckets      int
	Tables       []Table
	DefaultShard string
}

func (s *Sharding) fields() []field {
	return []field{
		{key: "buckets", into: integer(&s.Buckets, 1, 1<<16), def: "4096", doc: "How many buckets keys are hashed into: a power of two, at least one per shard. It can never change once there is data."},
		{key: "tables", into: named(&s.Tables, tableValue), doc: "Where each table's rows live. A table that is not named lives on `default_shard`."},
		{key: "default_shard", into: text(&s.DefaultShard), doc: "The shard of tables that are not named; the first shard when left out."},
	}
}

// Table says where one table's rows live: exactly one of Key, Reference and Shard is set.
type Table struct {
	Name      string // TABLE or SCHEMA.TABLE
	Key       string // sharded by this column
	Type      sharding.KeyType
	Reference bool   // a copy on every shard
	Shard     string // on this one shard
}

func tableValue(t *Table, name string) value {
	t.Name = name
	return wordOr("reference", func() { t.Reference = true }, func() []field {
		return []field{
			{key: "key", into: text(&t.Key), doc: "The column whose hash decides the shard. Rows of several tables with equal keys live together."},
			{key: "type", into: keyType(&t.Type), doc: "That column's type; `bigint` when left out."},
			{key: "shard", into: text(&t.Shard), doc: "Instead of `key`: the one shard that has the table."},
		}
	})
}

// Consistency holds the defaults of sessions.
type Consistency struct {
	Default     ConsistencyLevel
	WaitTimeout time.Duration
	OnTimeout   TimeoutPolicy
}

// ConsistencyLevel is the value of tidemark.consistency.
type ConsistencyLevel string

// TimeoutPolicy is the value of tidemark.on_timeout.
type TimeoutPolicy string

func (c *Consistency) fields() []field {
	return []field{
		{key: "default", into: choice[ConsistencyLevel](&c.Default, "session", "eventual"), def: "session", doc: "`session`: a session's reads see its own earlier writes, on replicas and read models too. `eventual`: they see what is there."},
		{key: "wait_timeout", into: period(&c.WaitTimeout), def: "5s", doc: "How long a read waits for a replica or a read model to reach what its session wrote."},
		{key: "on_timeout", into: choice[TimeoutPolicy](&c.OnTimeout, "primary", "stale", "error"), def: "primary", doc: "What happens then. `primary`: tables are read from the primary, and read models, which have none, give an error. `stale`: the read is answered with a notice. `error`: it fails."},
	}
}

// Kafka is the log of changes.
type Kafka struct {
	Brokers           []string
	TLS               bool
	CA                string
	SASL              *SASL
	Prefix            string
	Partitions        int
	ReplicationFactor int
	MinInSync         int // 0: the broker's default
	Compression       Compression
	Retention         time.Duration // 0: the broker's default
	MaxRecord         int64         // bytes
	Timeout           time.Duration
	SessionTimeout    time.Duration
}

// Compression of batches on Kafka.
type Compression string

func (k *Kafka) fields() []field {
	return []field{
		{key: "brokers", into: addresses(&k.Brokers), doc: "Addresses to begin with; the others are learned from them."},
		{key: "tls", into: boolean(&k.TLS), def: "false", doc: "Use TLS, and verify the brokers' certificates."},
		{key: "ca", into: text(&k.CA), doc: "File with the authorities, PEM, that sign those; the system's when left out."},
		{key: "sasl", into: optional(&k.SASL, (*SASL).fields), doc: "How to log in to the brokers; not at all when left out."},
		{key: "prefix", into: text(&k.Prefix), def: cqrs.DefaultPrefix, doc: "Put before the names of topics and consumer groups: `<prefix><database>.<schema>.<table>`."},
		{key: "partitions", into: integer(&k.Partitions, 1, 1000), def: strconv.Itoa(kafka.DefaultPartitions), doc: "Partitions of each table's topic, when Tidemark creates it. Never changed later, because order is kept per partition."},
		{key: "replication_factor", into: integer(&k.ReplicationFactor, 1, 10), def: "1", doc: "Copies of each topic, when Tidemark creates it. Use 3 where losing a broker must not lose changes."},
		{key: "min_in_sync", into: integer(&k.MinInSync, 0, 10), def: "0", doc: "`min.insync.replicas` of topics that Tidemark creates; 0 leaves it to the brokers. Use 2 with 3 copies."},
		{key: "compression", into: choice[Compression](&k.Compression, "none", "gzip", "snappy", "lz4", "zstd"), def: "none", doc: "Compression of batches."},
		{key: "retention", into: duration(&k.Retention), def: "0s", doc: "How long the topics of tables keep events, when Tidemark creates them; 0s leaves it to the brokers. A projector that was away for longer has to be rebuilt."},
		{key: "max_record", into: size(&k.MaxRecord), def: "1MB", doc: "The largest event, with the old and the new row. Capture stops at a larger one rather than leaving it out."},
		{key: "timeout", into: period(&k.Timeout), def: "10s", doc: "How long one request may take."},
		{key: "session_timeout", into: period(&k.SessionTimeout), def: "6s", doc: "After how long a silent projector is replaced by another one."},
	}
}

// SASL is a login to Kafka.
type SASL struct {
	Mechanism SASLMechanism
	User      string
	Password  Secret
}

// SASLMechanism is how a password is proven.
type SASLMechanism string

func (s *SASL) fields() []field {
	return []field{
		{key: "mechanism", into: choice[SASLMechanism](&s.Mechanism, "plain", "scram-sha-256", "scram-sha-512"), def: "scram-sha-512", doc: "How the password is proven."},
		{key: "user", into: text(&s.User), required: true, doc: "User."},
		{key: "password", into: secret(&s.Password), required: true, doc: "Password."},
	}
}

// Capture takes changes from the shards.
type Capture struct {
	Tables      []string
	Slot        string
	Publication string

	Failover           bool
	Resnapshot         bool
	FixReplicaIdentity bool
	SnapshotWorkers    int
	TxMemory           int64 // bytes
	SpillDir           string
}

func (c *Capture) fields() []field {
	return []field{
		{key: "tables", into: tableNames(&c.Tables), doc: "The tables whose changes are published; those that views are made from when left out. Each needs `REPLICA IDENTITY FULL`."},
		{key: "slot", into: text(&c.Slot), def: "tidemark", doc: "The logical replication slot on each shard's primary. Lower-case letters, digits and underscores."},
		{key: "publication", into: text(&c.Publication), def: "tidemark", doc: "The publication on each shard."},
		{key: "failover", into: boolean(&c.Failover), def: "false", doc: "Create slots that standbys keep too (PostgreSQL 17 and later)."},
		{key: "resnapshot", into: boolean(&c.Resnapshot), def: "false", doc: "Read all captured rows again, in a new epoch, when the stream cannot go on without a gap: the slot is gone, or the cluster is another one. Otherwise the projector stops with an error that says so."},
		{key: "fix_replica_identity", into: boolean(&c.FixReplicaIdentity), def: "false", doc: "Let the projector set `REPLICA IDENTITY FULL` where it is missing, instead of refusing to start."},
		{key: "snapshot_workers", into: integer(&c.SnapshotWorkers, 1, 64), def: "2", doc: "Connections to each shard that read tables at once when capture begins."},
		{key: "tx_memory", into: size(&c.TxMemory), def: "32MB", doc: "Memory for transactions in flight of one shard; the largest go to disk beyond it."},
		{key: "spill_dir", into: text(&c.SpillDir), doc: "Where to; the system's folder for temporary files when left out."},
	}
}

// View is a read model: exactly one of Elastic and Redis is set.
type View struct {
	Name    string
	From    string
	Elastic *ElasticView
	Redis   *RedisView
}

func viewValue(v *View, name string) value {
	v.Name = name
	return section(func() []field {
		return []field{
			{key: "from", into: tableName(&v.From), required: true, doc: "The table it is made from."},
			{key: "elastic", into: optional(&v.Elastic, (*ElasticView).fields), doc: "Keep it in Elasticsearch: filters, sorting and full text. `elastic: {}` takes every default."},
			{key: "redis", into: optional(&v.Redis, (*RedisView).fields), doc: "Keep it in Redis: fastest by key. `redis: {}` takes every default."},
		}
	})
}

// ElasticView is a read model's place in Elasticsearch.
type ElasticView struct {
	Index    string
	Mapping  map[string]any // by column
	Settings map[string]any
	Shards   int
	Replicas int
	Refresh  time.Duration
}

func (v *ElasticView) fields() []field {
	return []field{
		{key: "index", into: text(&v.Index), doc: "The index; the view's name when left out."},
		{key: "mapping", into: free(&v.Mapping, "a mapping from columns to Elasticsearch field definitions"), doc: "Field definitions by column, in Elasticsearch's own terms, instead of those derived from the columns' types: `{name: {type: text, analyzer: english}}`."},
		{key: "settings", into: free(&v.Settings, "a mapping of index settings"), doc: "Settings of the index, such as `analysis`, in Elasticsearch's own terms."},
		{key: "shards", into: integer(&v.Shards, 1, 1024), def: "1", doc: "Primary shards of the index."},
		{key: "replicas", into: integer(&v.Replicas, 0, 10), def: "0", doc: "Copies of each of them. Use 1 where losing a node must not lose the read model, which can be rebuilt."},
		{key: "refresh", into: period(&v.Refresh), def: "1s", doc: "How soon at the latest searches see what was applied. A session that waits for its own write has the index refreshed at once."},
	}
}

// RedisView is a read model's place in Redis.
type RedisView struct {
	Prefix string
	As     RedisForm
	Slices int
}

// RedisForm is how a row is kept under its key.
type RedisForm string

// The forms.
const (
	AsHash RedisForm = "hash"
	AsJSON RedisForm = "json"
)

func (v *RedisView) fields() []field {
	return []field{
		{key: "prefix", into: text(&v.Prefix), doc: "Put before each key, which goes on with the view's name in braces and the row's key: `<prefix>{customer_cache}:42`."},
		{key: "as", into: choice(&v.As, AsHash, AsJSON), def: "hash", doc: "A hash with a field per column, or one JSON text."},
		{key: "slices", into: integer(&v.Slices, 1, 4096), def: "1", doc: "How many hash tags, and so nodes of a Redis Cluster, the view is spread over. It can never change."},
	}
}

// Elasticsearch is the cluster of all Elasticsearch views.
type Elasticsearch struct {
	Addresses []string
	User      string
	Password  Secret
	APIKey    Secret
	CA        string
}

func (e *Elasticsearch) fields() []field {
	return []field{
		{key: "addresses", into: urls(&e.Addresses), doc: "URLs of its nodes."},
		{key: "user", into: text(&e.User), doc: "User for basic authentication."},
		{key: "password", into: secret(&e.Password), doc: "That user's password."},
		{key: "api_key", into: secret(&e.APIKey), doc: "Instead of user and password."},
		{key: "ca", into: text(&e.CA), doc: "File with the authorities, PEM, that sign the nodes' certificates; the system's when left out."},
	}
}

// Redis is the server of all Redis views.
type Redis struct {
	Address  string
	User     string
	Password Secret
	Database int
	TLS      bool
	Cluster  bool
	Timeout  time.Duration
}

func (r *Redis) fields() []field {
	return []field{
		{key: "address", into: address(&r.Address), doc: "The server's address."},
		{key: "user", into: text(&r.User), doc: "User, where access control lists are used."},
		{key: "password", into: secret(&r.Password), doc: "Password."},
		{key: "database", into: integer(&r.Database, 0, 1<<15), def: "0", doc: "The number of the logical database; none but 0 in a cluster."},
		{key: "tls", into: boolean(&r.TLS), def: "false", doc: "Use TLS, and verify the server's certificate by the system's authorities."},
		{key: "cluster", into: boolean(&r.Cluster), def: "false", doc: "The address is a node of a Redis Cluster."},
		{key: "timeout", into: period(&r.Timeout), def: "5s", doc: "How long one request may take."},
	}
}

// Log is what goes to standard error.
type Log struct {
	Level  LogLevel
	Format LogFormat
}

// LogLevel is the least level that is written.
type LogLevel string

// LogFormat is the form of a line.
type LogFormat string

// The forms of a line.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

func (l *Log) fields() []field {
	return []field{
		{key: "level", into: choice[LogLevel](&l.Level, "debug", "info", "warn", "error"), def: "info", doc: "The least level that is written."},
		{key: "format", into: choice(&l.Format, LogText, LogJSON), def: "text", doc: "`text` for people, `json` for machines, one line each."},
	}
}
