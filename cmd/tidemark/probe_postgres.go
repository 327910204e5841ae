package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/internal/config"
)

// postgresProbes has one probe for each server: login, version and role.
func postgresProbes(c *config.Config) []probe {
	var probes []probe
	for _, s := range c.Shards {
		for _, e := range s.Servers() {
			probes = append(probes, probe{
				name: fmt.Sprintf("%s %s", s.Name, e.Address()),
				run:  func(ctx context.Context) (string, error) { return probeServer(ctx, c, s, e) },
			})
		}
	}
	return probes
}

// server is what one query tells about a PostgreSQL server.
type server struct {
	version   string
	standby   bool
	slotsFree int
	replicas  int
	user      string
	path      string // its search_path
}

// misled says whether "$user" in search_path is the schema that Tidemark keeps its own tables in.
func (s *server) misled() bool { return s.user == "tidemark" && strings.Contains(s.path, "$user") }

// onCatalog leaves pg_catalog alone in the search_path: operators and functions of users, in a schema where they would be looked for, must
// not run as the role that Tidemark asks as.
func onCatalog(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "SET search_path TO pg_catalog, pg_temp")
	return err
}

func probeServer(ctx context.Context, c *config.Config, s config.Shard, e config.Endpoint) (string, error) {
	conn, err := connect(ctx, c, e)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }()
	var found server
	// What the role's search_path is counts; what it leads to must not be called, see onCatalog.
	if err = conn.QueryRow(ctx, "SELECT pg_catalog.current_setting('search_path')").Scan(&found.path); err == nil {
		err = onCatalog(ctx, conn)
	}
	if err != nil {
		return "", fmt.Errorf("ask the server: %w", err)
	}
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version'), pg_is_in_recovery(),
		current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_stat_replication), current_user::text`).
		Scan(&found.version, &found.standby, &found.slotsFree, &found.replicas, &found.user)
	if err != nil {
		return "", fmt.Errorf("ask the server: %w", err)
	}
	version, _, _ := strings.Cut(found.version, " ")
	detail := fmt.Sprintf("%s %s", roleName(found.standby), version)
	if e.Role != config.AnyRole && (e.Role == config.ReplicaRole) != found.standby {
		return "", advice{
			fmt.Errorf("it is a %s, while the file calls it a %s", roleName(found.standby), roleName(!found.standby)),
			fmt.Sprintf("correct the roles of shard %s, or list its servers under endpoints: to have them detected", s.Name),
		}
	}
	if found.misled() && len(c.Capture.Tables) > 0 {
		return "", advice{
			errors.New(`the role tidemark finds the schema tidemark, which capture makes for itself, before public, because its search_path has "$user"`),
			"ALTER ROLE tidemark SET search_path = public; or use a role of another name",
		}
	}
	if !found.standby {
		detail += fmt.Sprintf(", %s attached, %d slots free", counted(found.replicas, "replica"), found.slotsFree)
	}
	return detail, nil
}

func roleName(standby bool) string {
	if standby {
		return "replica"
	}
	return "primary"
}

// connect logs in to one server as the proxy does.
func connect(ctx context.Context, c *config.Config, e config.Endpoint) (*pgx.Conn, error) {
	if err := c.ServerFiles(); err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, c.ConnString(e))
	if err != nil {
		return nil, connectError(err, c.Database)
	}
	return conn, nil
}

// connectError takes the reason out of pgconn's error, which repeats the address for each attempt, and adds what helps.
func connectError(err error, db config.Database) error {
	var refused *pgconn.PgError
	code := ""
	if errors.As(err, &refused) {
		code = refused.Code
	}
	switch {
	case code == "28P01", code == "28000":
		return advice{fmt.Errorf("log in as %s: the server refused it", db.User), "check database.user and database.password, and pg_hba.conf on the server"}
	case code == "3D000":
		return advice{fmt.Errorf("the database %s does not exist there", db.ServerName), fmt.Sprintf("CREATE DATABASE %s;", pgx.Identifier{db.ServerName}.Sanitize())}
	case errors.Is(err, syscall.ECONNREFUSED):
		return advice{fmt.Errorf("nothing listens there"), "start the server, or correct host and port"}
	}
	return fmt.Errorf("connect: %w", err)
}
