package localstack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// templateFormat is part of a template's folder name: raise it when what initTemplate makes changes.
const templateFormat = 1

const pgHBA = `# The superuser needs no password on the loopback interface; every other role proves one by SCRAM.
host all         postgres 127.0.0.1/32 trust
host replication postgres 127.0.0.1/32 trust
host all         all      127.0.0.1/32 scram-sha-256
host replication all      127.0.0.1/32 scram-sha-256
`

// template returns a data folder to copy, made by initdb once per version and kept in the cache: copying takes a tenth of initdb's time.
// The shards of one version get a template each, by ordinal, so that no two shards of a stack share a system identifier.
func (p *Postgres) template(ctx context.Context, s *Stack, ordinal int) (string, error) {
	version, err := postgresVersion(ctx, p.bin)
	if err != nil {
		return "", err
	}
	f := s.fetcher()
	name := fmt.Sprintf("pgdata-%s-f%d-%d", version, templateFormat, ordinal)
	if s.account != nil {
		name += "-" + s.account.name
	}
	return f.once(ctx, name, func(part string) error {
		return p.initTemplate(ctx, s, part)
	})
}

// postgresVersion returns such as "18.6" for the programs in bin.
func postgresVersion(ctx context.Context, bin string) (string, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		return "", fmt.Errorf("localstack: %s --version: %w", filepath.Join(bin, "postgres"), err)
	}
	fields := strings.Fields(string(out)) // postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)
	if len(fields) < 3 {
		return "", fmt.Errorf("localstack: %s --version says %q", filepath.Join(bin, "postgres"), out)
	}
	return fields[2], nil
}

func (p *Postgres) initTemplate(ctx context.Context, s *Stack, dir string) error {
	if err := s.account.mkdir(dir); err != nil {
		return err
	}
	err := s.run(postgresCommand(p.bin, "initdb", "-D", dir, "-U", Superuser, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8",
		"--data-checksums", "--no-sync", "--no-instructions"), "")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "postgresql.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	if _, err = f.WriteString("\ninclude_if_exists 'tidemark.conf'\n"); err != nil {
		f.Close() //nolint:errcheck // the write has failed already
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := s.account.write(filepath.Join(dir, "pg_hba.conf"), pgHBA); err != nil {
		return err
	}
	// Single-user mode takes one statement per line.
	sql := fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'\nCREATE ROLE %s LOGIN REPLICATION CREATEDB PASSWORD '%s' IN ROLE pg_monitor\n", Superuser, Password, User, Password)
	return s.run(postgresCommand(p.bin, "postgres", "--single", "-D", dir, "-c", "password_encryption=scram-sha-256",
		"-c", "wal_level=logical", "-c", "fsync=off", "-c", "exit_on_error=on", "postgres"), sql)
}

// run runs a command of the stack's account to its end; its output is quoted when it fails.
func (s *Stack) run(cmd *exec.Cmd, stdin string) error {
	var out strings.Builder
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = childAttributes(s.account, syscall.SIGKILL)
	if err := s.nursery.start(cmd); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
	}
	if err := cmd.Wait(); err != nil {
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.Join(lines[max(0, len(lines)-3):], " | "))
	}
	return nil
}
