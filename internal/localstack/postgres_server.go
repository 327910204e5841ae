package localstack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Server is one PostgreSQL server.
type Server struct {
	*Service
	Host     string
	Port     int
	User     string // the superuser
	Password string
	Dir      string // its data folder

	postgres *Postgres
	slot     string // its physical slot on the primary; empty for the server that was created as the primary
}

// postmaster writes the server's settings and returns the command that runs it.
func (srv *Server) postmaster() (*exec.Cmd, error) {
	if err := srv.dropStalePID(); err != nil {
		return nil, err
	}
	if err := srv.stack.account.write(filepath.Join(srv.Dir, "tidemark.conf"), srv.settings()); err != nil {
		return nil, err
	}
	return postgresCommand(srv.postgres.bin, "postgres", "-D", srv.Dir), nil
}

// dropStalePID removes the postmaster.pid of a killed server whose process id something else has by now; PostgreSQL would refuse to start.
func (srv *Server) dropStalePID() error {
	path := filepath.Join(srv.Dir, "postmaster.pid")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err == nil && alive(pid) {
		// A postmaster's working folder is its data folder.
		if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || cwd == srv.Dir {
			return fmt.Errorf("process %d still runs PostgreSQL on %s: stop it first", pid, srv.Dir)
		}
	}
	return os.Remove(path)
}

// freeSharedMemory removes the System V segment of a killed server, which outlives it and of which the kernel has few; the seventh line of
// postmaster.pid names it.
func (srv *Server) freeSharedMemory() {
	b, err := os.ReadFile(filepath.Join(srv.Dir, "postmaster.pid"))
	if err != nil {
		return // it did not come so far
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) < 7 {
		return
	}
	var key, id int
	if _, err := fmt.Sscan(lines[6], &key, &id); err == nil {
		removeSegment(id)
	}
}

// Settings returns what every test server needs, wherever it runs: logical capture, two-phase commit, standbys, and little memory.
func Settings() map[string]string {
	return map[string]string{
		// A standby must allow at least as much as its primary.
		"wal_level":                 "logical",
		"max_connections":           "200",
		"max_wal_senders":           "20",
		"max_replication_slots":     "20",
		"max_prepared_transactions": "100",
		"max_worker_processes":      "16",

		"hot_standby_feedback":         "on",
		"wal_receiver_status_interval": "1s",
		"wal_retrieve_retry_interval":  "100ms", // a replica returns quickly after its primary does
		"track_commit_timestamp":       "on",

		"shared_buffers":      "64MB",
		"max_wal_size":        "512MB",
		"checkpoint_timeout":  "10min",
		"jit":                 "off",
		"password_encryption": "scram-sha-256",
		"timezone":            "UTC",
		"log_timezone":        "UTC",
		"log_line_prefix":     "%m [%p] %q%u@%d %a ",
		"logging_collector":   "off",
		"log_checkpoints":     "off",
	}
}

// settings are written at every start, because ports and the primary can differ from last time.
func (srv *Server) settings() string {
	set := Settings()
	set["listen_addresses"] = Host
	set["port"] = strconv.Itoa(srv.Port)
	set["unix_socket_directories"] = ""        // their paths may be longer than a socket's may
	set["dynamic_shared_memory_type"] = "mmap" // in the data folder, where nothing of a killed server stays behind
	set["cluster_name"] = srv.name
	if !srv.stack.spec.Durable {
		set["fsync"] = "off"
		set["full_page_writes"] = "off"
	}
	if srv.slot != "" {
		primary := srv.postgres.Primary
		set["primary_conninfo"] = fmt.Sprintf("host=%s port=%d user=%s application_name=%s", primary.Host, primary.Port, Superuser, srv.slot)
		set["primary_slot_name"] = srv.slot
	}
	maps.Copy(set, srv.postgres.spec.Settings)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(set)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(set[name], "'", "''"))
	}
	return b.String()
}

// do runs f on a fresh superuser connection to database postgres.
func (srv *Server) do(ctx context.Context, f func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, srv.DSN("postgres"))
	if err != nil {
		return err
	}
	return errors.Join(f(conn), conn.Close(ctx))
}

func (srv *Server) createSlot(ctx context.Context, slot string) error {
	err := srv.do(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `SELECT pg_create_physical_replication_slot($1, true)
			WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)`, slot)
		return err
	})
	if err != nil {
		return fmt.Errorf("localstack: %s: create slot %s: %w", srv.name, slot, err)
	}
	return nil
}

// Promote makes a replica a primary and waits until it is one. Other servers of the shard are left as they are.
func (srv *Server) Promote(ctx context.Context) error {
	err := srv.do(ctx, func(conn *pgx.Conn) error {
		var done bool
		err := conn.QueryRow(ctx, `SELECT pg_promote(true, 60)`).Scan(&done)
		if err == nil && !done {
			err = errors.New("not done after 60 seconds")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("localstack: promote %s: %w", srv.name, err)
	}
	return nil
}

// Addr is host:port.
func (srv *Server) Addr() string { return net.JoinHostPort(srv.Host, strconv.Itoa(srv.Port)) }

// DSN is a connection URL of the superuser for a database.
func (srv *Server) DSN(database string) string { return srv.DSNAs(Superuser, Password, database) }

// DSNAs is a connection URL of any role.
func (srv *Server) DSNAs(user, password, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: srv.Addr(), Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}
