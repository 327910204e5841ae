package replication

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// Config is what capture of one shard needs. Zero values mean the documented defaults.
type Config struct {
	Shard      string   // the shard's name, carried by everything that is published
	ConnString string   // URL or keywords of the shard's primary; several hosts need target_session_attrs=read-write
	Tables     []string // "schema.table", or "table" in schema public; quotes as in SQL where needed

	// ShardKeys are the columns by which tables of several shards are split, by their names in Tables. Such a table's primary key must contain
	// its column: the positions of two shards are not comparable, so no two of them may ever hold a row of one key.
	ShardKeys map[string]string

	Slot        string // logical slot; default "tidemark"
	Publication string // default: the slot's name
	Failover    bool   // create a slot that standbys keep too (PostgreSQL 17 and later)

	// Resnapshot permits starting over in a new epoch where the stream cannot go on without a gap (the slot is gone, the
	// cluster is another one, a table was added). Without it Run returns an error that wraps ErrResnapshotNeeded.
	Resnapshot bool
	// FixReplicaIdentity lets Run set REPLICA IDENTITY FULL where it is missing instead of refusing.
	FixReplicaIdentity bool
	// MinEpoch is the highest epoch that consumers have seen. A new epoch lies above it, also when the shard was restored
	// from a backup that has forgotten it.
	MinEpoch lsn.Epoch

	SnapshotWorkers int // tables are read by so many connections at once; default 2
	ChunkPages      int // table pages read by one COPY; default 1024 (8 MB)
	ChunkRows       int // most rows in one Tx of a snapshot; default 1000

	TempDir     string // where large transactions spill; default os.TempDir()
	TxMemory    int    // bytes of open transactions held in memory before the largest spills; default 32 MB
	PartChanges int    // most changes in one Tx; default 10,000
	PartBytes   int    // most bytes of the stream in one Tx of a spilled transaction; default 4 MB

	StatusInterval time.Duration // how often positions are confirmed to the server; default 1 s
	Heartbeat      time.Duration // how often an idle stream looks for WAL that nobody has flushed; default 1 s
	Settle         time.Duration // quiet time behind a commit until the stream looks likewise; default 10 ms
	ServerTimeout  time.Duration // silence after which a connection is dead; default 60 s
	SenderTimeout  time.Duration // the same on the server's side (wal_sender_timeout): bounds a takeover from a lost host; default 10 s
	TakeoverPoll   time.Duration // how often a waiting worker tries to become the shard's owner; default 500 ms
}

const (
	maxSlotName     = 63         // NAMEDATALEN - 1
	minTxMemory     = 64 << 10   // below it every transaction would touch the disk
	maxFrame        = 1<<30 + 64 // PostgreSQL's MaxAllocSize bounds every message
	maxRetryDelay   = 5 * time.Second
	firstRetryDelay = 100 * time.Millisecond
)

var slotName = regexp.MustCompile(`^[a-z0-9_]+$`)

// withDefaults returns the configuration with every zero replaced, or says which key is wrong.
func (c Config) withDefaults() (Config, error) {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	dur := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	if c.Slot == "" {
		c.Slot = "tidemark"
	}
	if c.Publication == "" {
		c.Publication = c.Slot
	}
	if c.TempDir == "" {
		c.TempDir = os.TempDir()
	}
	def(&c.SnapshotWorkers, 2)
	def(&c.ChunkPages, 1024)
	def(&c.ChunkRows, 1000)
	def(&c.TxMemory, 32<<20)
	def(&c.PartChanges, 10_000)
	def(&c.PartBytes, 4<<20)
	dur(&c.StatusInterval, time.Second)
	dur(&c.Heartbeat, time.Second)
	dur(&c.Settle, 10*time.Millisecond)
	dur(&c.ServerTimeout, time.Minute)
	dur(&c.SenderTimeout, 10*time.Second)
	dur(&c.TakeoverPoll, 500*time.Millisecond)

	switch {
	case c.Shard == "":
		return c, errors.New("capture: Shard must be named")
	case len(c.Slot) > maxSlotName || !slotName.MatchString(c.Slot):
		return c, fmt.Errorf("capture: slot name %q: want at most %d lower-case letters, digits and underscores", c.Slot, maxSlotName)
	case len(c.Tables) == 0:
		return c, fmt.Errorf("capture of shard %s: Tables is empty; name at least one table", c.Shard)
	case c.TxMemory < minTxMemory:
		return c, fmt.Errorf("capture of shard %s: TxMemory %d is below the least, %d bytes", c.Shard, c.TxMemory, minTxMemory)
	case c.SnapshotWorkers < 1 || c.ChunkPages < 1 || c.ChunkRows < 1 || c.PartChanges < 1 || c.PartBytes < 1:
		return c, fmt.Errorf("capture of shard %s: workers, chunk and part sizes must be positive", c.Shard)
	}
	if _, err := pgx.ParseConfig(c.ConnString); err != nil {
		return c, fmt.Errorf("capture of shard %s: %w", c.Shard, err) // pgx redacts the password
	}
	return c, nil
}

// tableName is a table's schema and name, unquoted.
type tableName struct{ schema, name string }

func (t tableName) String() string { return t.schema + "." + t.name }

func (t tableName) quoted() string { return pgx.Identifier{t.schema, t.name}.Sanitize() }

// parseTable reads a table's name as SQL would: parts folded to lower case unless quoted, schema public by default.
func parseTable(s string) (tableName, error) {
	var parts []string
	for rest := s; ; {
		var part string
		if strings.HasPrefix(rest, `"`) {
			end := 1
			for end < len(rest) && (rest[end] != '"' || strings.HasPrefix(rest[end:], `""`)) {
				if rest[end] == '"' {
					end++
				}
				end++
			}
			if end >= len(rest) {
				return tableName{}, fmt.Errorf("table %q: a quote is not closed", s)
			}
			part, rest = strings.ReplaceAll(rest[1:end], `""`, `"`), rest[end+1:]
		} else {
			end := strings.IndexByte(rest, '.')
			if end < 0 {
				end = len(rest)
			}
			part, rest = strings.ToLower(rest[:end]), rest[end:]
		}
		if part == "" || rest != "" && rest[0] != '.' {
			return tableName{}, fmt.Errorf("table %q: want table or schema.table", s)
		}
		parts = append(parts, part)
		if rest == "" {
			break
		}
		rest = rest[1:]
	}
	switch len(parts) {
	case 1:
		return tableName{"public", parts[0]}, nil
	case 2:
		return tableName{parts[0], parts[1]}, nil
	}
	return tableName{}, fmt.Errorf("table %q: want table or schema.table", s)
}
