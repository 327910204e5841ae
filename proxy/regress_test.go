package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/proxy"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

// TestPostgresRegression runs PostgreSQL's own regression tests (src/test/regress) by psql twice: against a private server, and through
// Tidemark against another, in one database that is not sharded. What psql prints must be the same, but for the tests that
// testdata/regress.txt gives a reason for. What PostgreSQL's files expect does not matter: it depends on how a server was built.
//
// TIDEMARK_REGRESS is a source tree of the servers' version in which psql and regress.so have been made; scripts/regress makes them.
// TIDEMARK_REGRESS_TESTS names the tests to run behind test_setup, all of the schedule when it is empty; many need those before them.
func TestPostgresRegression(t *testing.T) {
	tree := os.Getenv("TIDEMARK_REGRESS")
	if tree == "" {
		t.Skip("on demand: make regress SRC=/path/to/postgresql")
	}
	r := newRegression(t, tree)
	known := r.known(t)
	for _, test := range r.schedule(t) {
		t.Run(test, func(t *testing.T) {
			diff := r.run(t, test)
			switch reason, ok := known[test]; {
			case diff != "" && !ok:
				t.Errorf("from direct to tidemark:\n%s", diff)
			case diff != "":
				t.Logf("known, %s; from direct to tidemark:\n%s", reason, diff)
			case ok:
				t.Logf("no longer differs: %s", reason)
			}
		})
	}
}

const regressUser = "postgres" // some tests are about what the bootstrap superuser may

// regressTimeout ends a test that hangs. The slowest takes some seconds on an idle machine.
const regressTimeout = 10 * time.Minute

type regression struct {
	src  string // src/test/regress
	psql string
	lib  string        // of libpq
	out  string        // a folder that the servers, who may be another user, can write to
	ends [2]regressEnd // the private server, then Tidemark
}

type regressEnd struct{ name, dsn, build string }

func newRegression(t *testing.T, tree string) *regression {
	r := &regression{src: filepath.Join(tree, "src/test/regress"), psql: filepath.Join(tree, "src/bin/psql/psql"), lib: filepath.Join(tree, "src/interfaces/libpq")}
	for _, needed := range []string{r.psql, filepath.Join(r.src, "regress.so"), filepath.Join(r.src, "parallel_schedule")} {
		if _, err := os.Stat(needed); err != nil {
			t.Fatal(err)
		}
	}
	verifier, err := wire.NewVerifier(clientPassword)
	if err != nil {
		t.Fatal(err)
	}
	spec := fixtureSpec{shards: 1, pool: 4, user: regressUser}
	// A cluster of its own, for the tests make roles and tablespaces: its second shard is the private server.
	spec.cluster = testcontainers.New(t, testcontainers.Spec{Shards: 2, Settings: map[string]string{"max_prepared_transactions": "2"}})
	spec.backend = func(c *backend.Config) { c.User, c.Password = regressUser, "" }
	spec.config = func(c *proxy.Config) {
		c.Users = []proxy.User{{Name: regressUser, Secret: proxy.VerifierSecret(verifier)}}
	}
	f := newFixture(t, spec)
	if r.out, err = os.MkdirTemp("", "tidemark-regress-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(r.out) })
	r.ends = [2]regressEnd{
		{"direct", f.cluster.Shards[1].Primary.DSN(f.database), filepath.Join(r.out, "direct")},
		{"tidemark", altered(f.start(t, "epoll"), clientUser+":", regressUser+":"), filepath.Join(r.out, "tidemark")},
	}
	for i, end := range r.ends {
		dir := filepath.Join(end.build, "results")
		if err := errors.Join(os.MkdirAll(dir, 0o777), os.Chmod(r.out, 0o777), os.Chmod(end.build, 0o777), os.Chmod(dir, 0o777)); err != nil {
			t.Fatal(err)
		}
		conn := connect(t, f.cluster.Shards[i].Primary.DSN(f.database))
		for _, setting := range []string{`lc_messages TO 'C'`, `lc_monetary TO 'C'`, `lc_numeric TO 'C'`, `lc_time TO 'C'`, `bytea_output TO 'hex'`, `timezone_abbreviations TO 'Default'`} {
			exec(t, conn, `ALTER DATABASE `+f.database+` SET `+setting)
		}
		_ = conn.Close(t.Context())
	}
	return r
}

// schedule lists the tests, those of a group one after the other.
func (r *regression) schedule(t *testing.T) []string {
	text, err := os.ReadFile(filepath.Join(r.src, "parallel_schedule"))
	if err != nil {
		t.Fatal(err)
	}
	wanted := strings.Fields(os.Getenv("TIDEMARK_REGRESS_TESTS"))
	var tests []string
	for line := range strings.Lines(string(text)) {
		group, ok := strings.CutPrefix(line, "test:")
		if !ok {
			continue
		}
		for _, test := range strings.Fields(group) {
			if len(wanted) == 0 || test == "test_setup" || slices.Contains(wanted, test) {
				tests = append(tests, test)
			}
		}
	}
	return tests
}

// known reads why tests may differ: a line has the test's name and the reason.
func (r *regression) known(t *testing.T) map[string]string {
	f, err := os.Open("testdata/regress.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	known := map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if test, reason, ok := strings.Cut(lines.Text(), " "); ok && test != "#" {
			known[test] = reason
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return known
}

// run gives the difference between what psql prints at both ends.
func (r *regression) run(t *testing.T, test string) string {
	files := make([]string, len(r.ends))
	for i, end := range r.ends {
		files[i] = filepath.Join(r.out, test+"."+end.name)
		if err := os.WriteFile(files[i], r.play(t, test, end), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	diff, err := osexec.CommandContext(t.Context(), "diff", "-U", "5", files[0], files[1]).Output()
	var exit *osexec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) { // 1: they differ
		t.Fatalf("diff: %v", err)
	}
	return string(diff)
}

// play runs a test as pg_regress does.
func (r *regression) play(t *testing.T, test string, end regressEnd) []byte {
	ctx, cancel := context.WithTimeout(t.Context(), regressTimeout)
	defer cancel()
	script, err := os.Open(filepath.Join(r.src, "sql", test+".sql"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = script.Close() }()
	psql := osexec.CommandContext(ctx, r.psql, "-X", "-a", "-q", "-d", end.dsn, "-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on")
	psql.Stdin = script
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PG") && !strings.HasPrefix(v, "LC_") && !strings.HasPrefix(v, "LANG") {
			psql.Env = append(psql.Env, v)
		}
	}
	psql.Env = append(psql.Env, "LANG=C", "LC_MESSAGES=C", "LD_LIBRARY_PATH="+r.lib, "PGAPPNAME=pg_regress", "PGTZ=America/Los_Angeles", "PGDATESTYLE=Postgres, MDY",
		"PGOPTIONS=-c intervalstyle=postgres_verbose", "PG_ABS_SRCDIR="+r.src, "PG_ABS_BUILDDIR="+end.build, "PG_LIBDIR="+r.src, "PG_DLSUFFIX=.so")
	out, err := psql.CombinedOutput()
	if err != nil {
		out = append(out, "psql: "+err.Error()+"\n"...) // some tests end so, at both ends
	}
	return bytes.ReplaceAll(out, []byte(end.build), []byte("BUILD"))
}
