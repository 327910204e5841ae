package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ErrRefused marks a shard that cannot be captured as it is set up. The message lists what is wrong and how to mend it.
var ErrRefused = errors.New("capture refused")

// Finding is something about a shard that capture cannot work with, or only in part.
type Finding struct {
	Table   string // "schema.table"; empty if it is about the server
	Warning bool   // capture works, within the limit that Problem names
	Problem string
	Fix     string // a command, or what to do
}

func (f Finding) String() string {
	s := f.Problem
	if f.Table != "" {
		s = f.Table + ": " + s
	}
	if f.Fix != "" {
		s += "; " + f.Fix
	}
	return s
}

const leastVersion = 150000

// Check looks at the shard without changing it, and returns what stands in the way, in order of importance.
func (c *Capture) Check(ctx context.Context) ([]Finding, error) {
	conn, err := c.cfg.connect(ctx, "check", nil)
	if err != nil {
		return nil, err
	}
	defer closeConn(conn)
	findings, _, err := inspect(ctx, conn, &c.cfg)
	return findings, err
}

// closeConn ends a connection in an orderly way, as far as that goes within a second.
func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), queryTimeout/30)
	defer cancel()
	_ = conn.Close(ctx) // it is gone in any case
}

// refusal joins the findings that are no warnings into an error.
func refusal(shard string, findings []Finding) error {
	var lines []string
	for _, f := range findings {
		if !f.Warning {
			lines = append(lines, f.String())
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return fmt.Errorf("%w: shard %s: %s", ErrRefused, shard, strings.Join(lines, "\n  "))
}

// table is a captured table as the catalog has it now.
type table struct {
	tableName
	oid         uint32
	partitioned bool
	key         []string
	leaves      []leaf // the physical tables: itself, or its partitions
}

type leaf struct {
	tableName
	oid uint32
}

func (t *table) captured() capturedTable {
	return capturedTable{Schema: t.schema, Name: t.name, OID: t.oid, Key: t.key}
}

// inspect checks the server and every table, and returns the tables that exist.
func inspect(ctx context.Context, conn *pgx.Conn, cfg *Config) ([]Finding, []*table, error) {
	findings, version, err := inspectServer(ctx, conn, cfg)
	if err != nil {
		return nil, nil, err
	}
	owners, err := inspectOwners(ctx, conn)
	if err != nil {
		return nil, nil, err
	}
	findings = append(findings, owners...)
	var tables []*table
	for _, name := range cfg.Tables {
		tn, err := parseTable(name)
		if err != nil {
			return nil, nil, err
		}
		t, found, err := inspectTable(ctx, conn, tn, cfg.ShardKeys[name], version)
		if err != nil {
			return nil, nil, fmt.Errorf("inspect table %s: %w", tn, err)
		}
		findings = append(findings, found...)
		if t != nil {
			tables = append(tables, t)
		}
	}
	return findings, tables, nil
}

func inspectServer(ctx context.Context, conn *pgx.Conn, cfg *Config) (out []Finding, version int, err error) {
	var (
		level, encoding               string
		standby, canReplicate, exists bool
		free, senders                 int
	)
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('wal_level'), pg_is_in_recovery(),
		(SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()),
		(SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user),
		EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1),
		current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots)::int,
		current_setting('max_wal_senders')::int`, cfg.Slot).
		Scan(&version, &level, &standby, &encoding, &canReplicate, &exists, &free, &senders)
	if err != nil {
		return nil, 0, fmt.Errorf("inspect shard %s: %w", cfg.Shard, err)
	}
	add := func(bad bool, problem, fix string) {
		if bad {
			out = append(out, Finding{Problem: problem, Fix: fix})
		}
	}
	add(version < leastVersion, fmt.Sprintf("PostgreSQL %d is too old", version/10000), "PostgreSQL 15 or later is needed")
	add(standby, "the server is a standby", "connect to the primary")
	add(level != "logical", "wal_level is "+level, "ALTER SYSTEM SET wal_level = logical; then restart the server")
	add(!canReplicate, "the role may not replicate", "ALTER ROLE "+pgx.Identifier{conn.Config().User}.Sanitize()+" REPLICATION")
	add(!exists && free <= 0, "no replication slot is free", "raise max_replication_slots and restart the server, or drop a slot that nobody uses")
	add(senders == 0, "max_wal_senders is 0", "ALTER SYSTEM SET max_wal_senders = 10; then restart the server")
	add(encoding == "SQL_ASCII", "the database's encoding is SQL_ASCII, whose bytes have no JSON form", "use a database with encoding UTF8")
	if cfg.Failover && version < 170000 {
		out = append(out, Finding{Warning: true, Problem: "slots that standbys keep exist from PostgreSQL 17 on", Fix: "after a failover the slot is gone and a new snapshot is needed"})
	}
	return out, version, nil
}

func inspectTable(ctx context.Context, conn *pgx.Conn, tn tableName, shardKey string, version int) (*table, []Finding, error) {
	t := &table{tableName: tn}
	var kind, persistence string
	err := conn.QueryRow(ctx, `SELECT c.oid, c.relkind::text, c.relpersistence::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname = $2`, tn.schema, tn.name).Scan(&t.oid, &kind, &persistence)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, []Finding{{Table: tn.String(), Problem: "the table does not exist", Fix: "create it, or remove it from the configuration"}}, nil
	} else if err != nil {
		return nil, nil, err
	}
	t.partitioned = kind == "p"
	var out []Finding
	refuse := func(problem, fix string) { out = append(out, Finding{Table: tn.String(), Problem: problem, Fix: fix}) }
	if kind != "r" && kind != "p" {
		refuse("it is not a table (relkind "+kind+")", "capture the tables behind it")
		return nil, out, nil
	}
	if persistence != "p" {
		refuse("unlogged and temporary tables are not in WAL", "ALTER TABLE "+tn.quoted()+" SET LOGGED")
	}
	if out, err = inspectKey(ctx, conn, t, shardKey, out); err != nil {
		return nil, nil, err
	}
	if out, err = inspectGenerated(ctx, conn, t, version, out); err != nil {
		return nil, nil, err
	}
	out, err = inspectLeaves(ctx, conn, t, out)
	return t, out, err
}

// inspectKey checks the primary key. The shard key is empty for a table that one shard alone holds.
func inspectKey(ctx context.Context, conn *pgx.Conn, t *table, shardKey string, out []Finding) ([]Finding, error) {
	var err error
	if t.key, err = primaryKey(ctx, conn, t.oid); err != nil {
		return nil, err
	}
	if len(t.key) == 0 {
		return append(out, Finding{Table: t.String(), Problem: "it has no primary key", Fix: "ALTER TABLE " + t.quoted() + " ADD PRIMARY KEY (…)"}), nil
	}
	var immediate bool
	var name string
	if err := conn.QueryRow(ctx, `SELECT i.indimmediate, c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
		WHERE i.indrelid = $1 AND i.indisprimary`, t.oid).Scan(&immediate, &name); err != nil {
		return nil, err
	}
	if shardKey != "" && !slices.Contains(t.key, shardKey) {
		out = append(out, Finding{
			Table: t.String(), Problem: "its primary key does not contain the shard key " + shardKey + ": two shards could hold, or have held, a row of the same key",
			Fix: "ALTER TABLE " + t.quoted() + " DROP CONSTRAINT " + pgx.Identifier{name}.Sanitize() + ", ADD PRIMARY KEY (" + columnList(append([]string{shardKey}, t.key...)) + ")",
		})
	}
	if !immediate {
		// Two rows may then hold one key inside a transaction, and the key's last change need not be its last state.
		out = append(out, Finding{Table: t.String(), Problem: "its primary key is deferrable", Fix: "make the constraint NOT DEFERRABLE"})
	}
	return out, nil
}

func columnList(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = pgx.Identifier{n}.Sanitize()
	}
	return strings.Join(quoted, ", ")
}

func inspectGenerated(ctx context.Context, conn *pgx.Conn, t *table, version int, out []Finding) ([]Finding, error) {
	rows, err := conn.Query(ctx, `SELECT attname::text, attgenerated::text FROM pg_attribute
		WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated <> '' ORDER BY attnum`, t.oid)
	if err != nil {
		return nil, err
	}
	var name, kind string
	_, err = pgx.ForEachRow(rows, []any{&name, &kind}, func() error {
		f := Finding{Table: t.String(), Fix: "ALTER TABLE " + t.quoted() + " ALTER COLUMN " + pgx.Identifier{name}.Sanitize() + " DROP EXPRESSION, or drop the column and compute it in a view"}
		switch {
		case kind == "v":
			f.Problem = fmt.Sprintf("column %s is generated and virtual: PostgreSQL refuses UPDATE and DELETE on such a published table", name)
			f.Fix = "drop the column, or make it STORED"
		case version < publishGeneratedVersion:
			f.Problem = fmt.Sprintf("column %s is generated, and this server (before PostgreSQL 18) does not publish such columns", name)
		default:
			return nil
		}
		out = append(out, f)
		return nil
	})
	return out, err
}

// inspectLeaves checks what must hold of each physical table: for a partitioned table each partition logs its own old rows.
func inspectLeaves(ctx context.Context, conn *pgx.Conn, t *table, out []Finding) ([]Finding, error) {
	rows, err := conn.Query(ctx, `SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relreplident::text
		FROM (SELECT $1::oid AS oid UNION SELECT relid FROM pg_partition_tree($1::oid::regclass)) p
		JOIN pg_class c ON c.oid = p.oid JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY n.nspname, c.relname`, t.oid)
	if err != nil {
		return nil, err
	}
	var (
		l              leaf
		kind, identity string
	)
	_, err = pgx.ForEachRow(rows, []any{&l.oid, &l.schema, &l.name, &kind, &identity}, func() error {
		switch {
		case kind == "p": // holds no rows
		case kind != "r":
			out = append(out, Finding{Table: l.String(), Problem: "a partition is not an ordinary table", Fix: "detach the foreign table"})
		default:
			t.leaves = append(t.leaves, l)
			if identity != "f" {
				out = append(out, Finding{
					Table: l.String(), Problem: "REPLICA IDENTITY is not FULL: old rows and unchanged large values would be missing",
					Fix: replicaIdentityFix(l.tableName),
				})
			}
		}
		return nil
	})
	if t.partitioned && err == nil {
		out = append(out, Finding{
			Table: t.String(), Warning: true, Problem: "TRUNCATE, DETACH or DROP of a single partition is not in the stream",
			Fix: "DELETE its rows first, or truncate the whole table; new partitions need REPLICA IDENTITY FULL too",
		})
	}
	return out, err
}

func replicaIdentityFix(t tableName) string {
	return "ALTER TABLE " + t.quoted() + " REPLICA IDENTITY FULL"
}

// fixReplicaIdentity runs the command of every finding about replica identity, and returns the findings that are left.
func fixReplicaIdentity(ctx context.Context, conn *pgx.Conn, findings []Finding) ([]Finding, error) {
	var left []Finding
	for _, f := range findings {
		if !strings.HasSuffix(f.Fix, " REPLICA IDENTITY FULL") || f.Warning {
			left = append(left, f)
			continue
		}
		if _, err := conn.Exec(ctx, f.Fix); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Fix, err)
		}
	}
	return left, nil
}
