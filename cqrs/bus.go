package cqrs

import (
	"context"
	"errors"
	"strings"
	"time"
)

// Bus is the log that events travel on: topics of numbered partitions, each an ordered sequence of records with
// growing offsets. Kafka is one (cqrs/kafka), Memory another for tests and for a single process. Every Bus passes the
// suite in cqrs/bustest. Methods may be called from many goroutines, and fail with their context's error when it ends.
//
// Errors that wrap ErrPermanent will not go away by trying again; all others may.
type Bus interface {
	// Ensure creates the topics that do not exist. A topic that exists keeps its partitions and settings.
	Ensure(ctx context.Context, topics ...Topic) error

	// Bounds returns the first and the end offset of every partition of a topic, in order of partition.
	// It fails with ErrNoTopic when there is no such topic.
	Bounds(ctx context.Context, topic string) ([]Bounds, error)

	// Append adds records to one partition, in order and next to each other, and returns the first one's offset once
	// every in-sync replica has them. After an error that is not ErrPermanent they may or may not have been added.
	// A record that the bus can never take fails with ErrTooLarge and nothing is added.
	Append(ctx context.Context, topic string, partition int, records []Record) (base int64, err error)

	// Fetch returns records from offset on, at least one if there are any within wait, and no more than about maxBytes.
	// It fails with ErrOutOfRange when offset is not within the partition's bounds.
	Fetch(ctx context.Context, topic string, partition int, offset int64, maxBytes int, wait time.Duration) (Batch, error)

	// Join makes the caller a member of a group, which shares out the partitions of topics among its members, and runs own
	// in a goroutine of its own for each partition that this member has got. When the partition is taken away own's context
	// ends and own must return soon; another member starts where the last Commit left off, but not before. Join returns
	// when ctx ends (nil) or when own fails for another reason than its context (that error). Anything else, such as a
	// bus that cannot be reached, is logged and tried again.
	Join(ctx context.Context, group string, topics []string, own func(ctx context.Context, c Claim) error) error
}

// Topic is one to be created.
type Topic struct {
	Name       string
	Partitions int           // 0: the bus's default
	Compacted  bool          // keeps the last record of each key for ever; a record without a value removes its key
	Retention  time.Duration // how long records are kept, 0: the bus's default, negative: for ever
}

// Record is one entry of a partition.
type Record struct {
	Key, Value []byte // a nil Value in a compacted topic removes the key
	Headers    []Header
	Offset     int64     // set by Fetch
	Time       time.Time // set by Fetch: when it was appended
}

// Header is one of a record's headers.
type Header struct {
	Key   string
	Value []byte
}

// Header returns a header's value, nil when there is none.
func (r *Record) Header(key string) []byte {
	for i := range r.Headers {
		if r.Headers[i].Key == key {
			return r.Headers[i].Value
		}
	}
	return nil
}

// recordOverhead is about what a record takes on the wire beside its key, value and headers, in bytes.
const recordOverhead = 32

// Size is about what the record takes on the wire, in bytes.
func (r *Record) Size() int {
	n := recordOverhead + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += 4 + len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return n
}

// Bounds of a partition: its oldest record's offset and the offset that the next record will get.
type Bounds struct{ First, End int64 }

// Batch is what one Fetch returned.
type Batch struct {
	Records []Record
	Next    int64 // where to fetch next; beyond the last record's offset, even when Records is empty (compaction leaves holes)
	End     int64 // the partition's end offset at that time
}

// Claim is one partition that a member of a group owns.
type Claim struct {
	Topic     string
	Partition int
	// Offset is where to begin: the group's committed offset. When it has none, Offset is the partition's first one and
	// Fresh is set.
	Offset int64
	Fresh  bool
	// Commit stores the offset of the first record that has not been dealt with. It fails when the partition has been
	// taken away.
	Commit func(ctx context.Context, offset int64) error
}

// Errors of a Bus.
var (
	ErrNoTopic    = errors.New("no such topic")
	ErrOutOfRange = errors.New("offset out of range")
	// ErrTooLarge is permanent: the record exceeds what the bus accepts.
	ErrTooLarge = errors.New("record too large")
)

// Names of topics of one Tidemark.
type Names struct {
	Prefix   string // default "tidemark."
	Database string
}

// DefaultPrefix begins the names of topics and groups.
const DefaultPrefix = "tidemark."

func (n Names) prefix() string {
	if n.Prefix == "" {
		return DefaultPrefix
	}
	return n.Prefix
}

// Table is a table's topic: PREFIX DATABASE.SCHEMA.TABLE. Bytes that Kafka does not allow in names, and the dots and
// dashes inside names, become a dash and two hexadecimal digits, so that two tables never share a topic.
func (n Names) Table(schema, table string) string {
	return n.prefix() + escapeName(n.Database) + "." + escapeName(schema) + "." + escapeName(table)
}

// Progress, Levels and DLQ are the system topics: how far capture has published, how far views have applied, and what
// could not be applied.
func (n Names) Progress() string { return n.prefix() + "progress" }
func (n Names) Levels() string   { return n.prefix() + "levels" }
func (n Names) DLQ() string      { return n.prefix() + "dlq" }

// Group is the consumer group of one generation of a view.
func (n Names) Group(v ViewID) string { return n.prefix() + "view." + escapeName(v.String()) }

// System lists the system topics as they are to be created. All are compacted by key and have one partition, so that
// a follower sees one order: progress keeps the last record of each shard, levels that of each view and partition, and
// the dead-letter queue every event until it is acknowledged by a tombstone.
func (n Names) System() []Topic {
	return []Topic{
		{Name: n.Progress(), Partitions: 1, Compacted: true},
		{Name: n.Levels(), Partitions: 1, Compacted: true},
		{Name: n.DLQ(), Partitions: 1, Compacted: true},
	}
}

func escapeName(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_':
			b.WriteByte(c)
		default:
			b.WriteByte('-')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}

// Partition returns the partition of a key among n: murmur2 as Kafka's own clients partition keyed records
// (org.apache.kafka.common.utils.Utils.murmur2 and toPositive), so that other producers and joins in Kafka Streams agree.
func Partition(key []byte, n int) int {
	return int(murmur2(key)&0x7fffffff) % n
}

func murmur2(data []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := uint32(seed) ^ uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		k := uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16 | uint32(data[3])<<24
		k *= m
		k ^= k >> r
		k *= m
		h *= m
		h ^= k
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(data[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}
