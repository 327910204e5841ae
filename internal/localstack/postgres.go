package localstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// Logins of every PostgreSQL server. The superuser needs no password on 127.0.0.1; every other role logs in by SCRAM-SHA-256.
const (
	Superuser = "postgres"
	User      = "tidemark" // LOGIN REPLICATION CREATEDB, member of pg_monitor
	Password  = "tidemark" // of both
)

// DefaultPostgresVersion is the major version that an empty PostgresSpec.Version means.
const DefaultPostgresVersion = "18"

// PostgresVersions lists the major versions that can be started, oldest first.
var PostgresVersions = []string{"15", "16", "17", "18"}

// PostgresSpec is one shard: a primary and its streaming replicas.
type PostgresSpec struct {
	Name     string // [a-z][a-z0-9_]*; names the services NAME-primary, NAME-replica0, ...
	Replicas int
	Version  string // major version, "15" to "18"; empty means DefaultPostgresVersion
	// Settings are added to postgresql.conf of every server, such as {"shared_buffers": "256MB"}; they win over localstack's own.
	Settings map[string]string
}

var shardName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

func (p PostgresSpec) check() error {
	if !shardName.MatchString(p.Name) {
		return fmt.Errorf("localstack: shard name %q: use lower case letters, digits and underscores, a letter first", p.Name)
	}
	if p.Replicas < 0 {
		return fmt.Errorf("localstack: shard %s: %d replicas", p.Name, p.Replicas)
	}
	if p.Version != "" && !slices.Contains(PostgresVersions, p.Version) {
		return fmt.Errorf("localstack: shard %s: PostgreSQL %q is not among %s", p.Name, p.Version, strings.Join(PostgresVersions, ", "))
	}
	return nil
}

// Postgres is one running shard.
type Postgres struct {
	Name     string
	Version  string // major
	Primary  *Server
	Replicas []*Server

	spec PostgresSpec
	bin  string // folder of its programs
}

func newPostgres(s *Stack, spec PostgresSpec, port func(string) int) *Postgres {
	if spec.Version == "" {
		spec.Version = DefaultPostgresVersion
	}
	p := &Postgres{Name: spec.Name, Version: spec.Version, spec: spec}
	p.Primary = p.server(s, "primary", "", port)
	for i := range spec.Replicas {
		slot := "replica" + strconv.Itoa(i)
		p.Replicas = append(p.Replicas, p.server(s, slot, slot, port))
	}
	return p
}

func (p *Postgres) server(s *Stack, role, slot string, port func(string) int) *Server {
	name := p.Name + "-" + role
	srv := &Server{
		Service: s.service(name), Host: Host, Port: port(name), User: Superuser, Password: Password,
		Dir: filepath.Join(s.Dir, p.Name, role), postgres: p, slot: slot,
	}
	// SIGINT is PostgreSQL's fast shutdown. When our process dies the postmaster gets SIGQUIT, its immediate one: it takes its
	// children along and frees its shared memory, which SIGKILL would leave behind.
	srv.polite, srv.death = syscall.SIGINT, syscall.SIGQUIT
	srv.killed = srv.freeSharedMemory
	srv.command = srv.postmaster
	srv.ready = func(ctx context.Context) error { return PostgresAnswers(ctx, srv.DSN("postgres")) }
	return srv
}

// startPostgres finds the programs of each version once, then starts all shards.
func (s *Stack) startPostgres(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	seen := map[string]int{} // shards so far, by version
	for _, p := range s.Postgres {
		ordinal := seen[p.Version]
		seen[p.Version]++
		g.Go(func() error {
			bin, err := s.fetcher().postgres(ctx, p.Version)
			if err != nil {
				return err
			}
			p.bin = bin
			return p.create(ctx, s, ordinal)
		})
	}
	return g.Wait()
}

// create makes the data folders that are missing and starts the servers, the primary first.
func (p *Postgres) create(ctx context.Context, s *Stack, ordinal int) error {
	dir := filepath.Join(s.Dir, p.Name)
	if err := s.account.mkdir(dir); err != nil {
		return fmt.Errorf("localstack: %w", err)
	}
	fresh := !exists(p.Primary.Dir)
	if fresh {
		template, err := p.template(ctx, s, ordinal)
		if err != nil {
			return err
		}
		for _, srv := range p.servers() {
			if err := s.adopt(template, srv.Dir); err != nil {
				return err
			}
			if srv.slot == "" {
				continue
			}
			if err := s.account.write(filepath.Join(srv.Dir, "standby.signal"), ""); err != nil {
				return fmt.Errorf("localstack: %w", err)
			}
		}
	}
	if err := p.Primary.Start(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, r := range p.Replicas {
		if err := p.Primary.createSlot(ctx, r.slot); err != nil {
			return err
		}
		g.Go(func() error {
			if !exists(r.Dir) { // a replica more than last time
				if err := p.Primary.backup(ctx, r.Dir); err != nil {
					return err
				}
			}
			return r.Start(ctx)
		})
	}
	return g.Wait()
}

func (p *Postgres) servers() []*Server { return append([]*Server{p.Primary}, p.Replicas...) }

// adopt copies a data folder under a temporary name first, so that an interrupted copy is never taken for a data folder.
func (s *Stack) adopt(from, to string) error {
	part := to + ".part"
	if err := os.RemoveAll(part); err != nil {
		return fmt.Errorf("localstack: %w", err)
	}
	if err := s.account.copyTree(from, part, func(string) bool { return false }); err != nil {
		return fmt.Errorf("localstack: copy the data folder: %w", err)
	}
	if err := os.Rename(part, to); err != nil {
		return fmt.Errorf("localstack: %w", err)
	}
	return nil
}

// postgresCommand is a command of the PostgreSQL programs in bin, with an environment that leaves nothing to the user's.
func postgresCommand(bin, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, program), args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + bin + ":/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC"}
	return cmd
}

// notInBackup leaves out what belongs to the running primary alone: its process, its slots, and its WAL, which is streamed instead.
func notInBackup(rel string) bool {
	switch filepath.Dir(rel) {
	case "pg_wal", "pg_replslot":
		return rel != filepath.Join("pg_wal", "archive_status")
	}
	return rel == "postmaster.pid" || rel == "postmaster.opts"
}

// backup takes a base backup of the running server into the new folder dir, ready to stream from it as a standby.
//
// It follows "Making a Base Backup Using the Low Level API" of PostgreSQL's manual: files may be copied while they change, because the
// standby replays everything since the start of the backup.
func (srv *Server) backup(ctx context.Context, dir string) error {
	err := srv.do(ctx, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, `SELECT pg_backup_start('localstack', true)`); err != nil {
			return err
		}
		part := dir + ".part"
		if err := os.RemoveAll(part); err != nil {
			return err
		}
		if err := srv.stack.account.copyTree(srv.Dir, part, notInBackup); err != nil {
			return err
		}
		var label, tablespaces string
		if err := conn.QueryRow(ctx, `SELECT labelfile, spcmapfile FROM pg_backup_stop(false)`).Scan(&label, &tablespaces); err != nil {
			return err
		}
		a := srv.stack.account
		if err := errors.Join(a.write(filepath.Join(part, "backup_label"), label), a.write(filepath.Join(part, "standby.signal"), "")); err != nil {
			return err
		}
		return os.Rename(part, dir)
	})
	if err != nil {
		return fmt.Errorf("localstack: back up %s: %w", srv.name, err)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
