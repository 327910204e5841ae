package proxy_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Drivers of other languages. Each has a script under testdata/drivers that does what people do with it, and prints what
// it gets: values of all types, errors, transactions and savepoints, pipelines, prepared statements, COPY, cursors,
// cancelled queries, notifications, large values, rows by key. It runs against PostgreSQL itself, through Tidemark to one
// shard on one loop engine and to two shards on the other: whatever it prints must be the same.
//
// The drivers come by their language's package manager, in the versions of the lock files beside the scripts, into the
// user's cache folder. A language that the machine lacks is skipped; TIDEMARK_TEST_DRIVERS=all makes that a failure.

// language is how the drivers of one language are installed and their scripts run.
type language struct {
	program, missing string   // what must be there, and what to do when it is not
	locked           []string // files that say what is installed; they name the cache folder
	install          [][]string
	scripts          []string // what runs, behind run
	run              []string
}

// DIR stands for the cache folder.
var languages = map[string]language{
	"node": {
		program: "node", missing: "install Node.js 18 or later, with npm",
		locked:  []string{"package.json", "package-lock.json"},
		install: [][]string{{"npm", "ci", "--prefix", "DIR", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"}},
		run:     []string{"node"}, scripts: []string{"pg.js", "postgresjs.js"},
	},
	"python": {
		program: "python3", missing: "install Python 3.9 or later, with venv and pip (apt-get install python3-venv python3-pip)",
		locked: []string{"requirements.txt"},
		install: [][]string{
			{"python3", "-m", "venv", "--clear", "DIR/venv"},
			{"DIR/venv/bin/python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", "DIR/requirements.txt"},
		},
		run: []string{"DIR/venv/bin/python3"}, scripts: []string{"psycopg2_script.py", "psycopg3_script.py", "asyncpg_script.py", "sqlalchemy_script.py"},
	},
	"java": {
		program: "javac", missing: "install a JDK, 17 or later, and Maven (apt-get install default-jdk-headless maven)",
		locked: []string{"pom.xml", "Drivers.java"},
		install: [][]string{
			{"mvn", "--batch-mode", "--quiet", "--file", "DIR/pom.xml", "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies", "-DoutputDirectory=DIR/lib"},
			{"javac", "-encoding", "UTF-8", "-cp", "DIR/lib/*", "-d", "DIR/classes", "DIR/Drivers.java"},
		},
		run: []string{"java", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-cp", "DIR/classes:DIR/lib/*"}, scripts: []string{"Drivers"},
	},
	"rust": {
		program: "cargo", missing: "install Rust 1.80 or later (rustup.rs)",
		locked:  []string{"Cargo.toml", "Cargo.lock", "src/main.rs"},
		install: [][]string{{"cargo", "build", "--locked", "--quiet", "--manifest-path", "DIR/Cargo.toml", "--target-dir", "DIR/../rust-target"}, {"cp", "DIR/../rust-target/debug/drivers", "DIR/drivers"}},
		run:     []string{}, scripts: []string{"DIR/drivers"},
	},
}

func TestDrivers(t *testing.T) {
	for name, lang := range languages {
		t.Run(name, func(t *testing.T) {
			dir := lang.prepare(t, name)
			for _, script := range lang.scripts {
				t.Run(strings.TrimPrefix(script, "DIR/"), func(t *testing.T) { lang.compare(t, name, dir, script) })
			}
		})
	}
}

// compare runs one script against PostgreSQL and through Tidemark.
func (lang language) compare(t *testing.T, name, dir, script string) {
	plain := newFixture(t, fixtureSpec{shards: 1})
	one := newFixture(t, fixtureSpec{shards: 1})
	for _, f := range []*fixture{plain, one} {
		exec(t, connect(t, f.direct(0)), shopSchema)
	}
	_, two := shop(t, "epoll", fixtureSpec{})
	args := words(dir, append(slices.Clone(lang.run), script))
	if file := filepath.Join("testdata", "drivers", name, script); exists(file) {
		args[len(args)-1] = file
	}
	want := output(t, dir, append(args, plain.direct(0)))
	if strings.Contains(want, "FAILED") {
		t.Fatalf("PostgreSQL itself: %s", want)
	}
	for target, dsn := range map[string]string{"one shard": one.start(t, "goroutines"), "two shards": two} {
		got := output(t, dir, append(args, dsn))
		if diff := lineDiff(want, got); diff != "" {
			t.Errorf("%s: -PostgreSQL +Tidemark\n%s", target, diff)
		}
	}
}

// lineDiff is what two outputs do not have in common, line by line: a part of a script that failed prints less and other
// things than it should, and what follows is aligned again.
func lineDiff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	var out strings.Builder
	for len(w) > 0 || len(g) > 0 {
		switch {
		case len(w) > 0 && len(g) > 0 && w[0] == g[0]:
			w, g = w[1:], g[1:]
		case len(g) > 0 && (len(w) == 0 || !slices.Contains(w, g[0])):
			fmt.Fprintf(&out, "+ %s\n", g[0])
			g = g[1:]
		default:
			fmt.Fprintf(&out, "- %s\n", w[0])
			w = w[1:]
		}
	}
	return out.String()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// output is what the script prints, whether it succeeds or not. One that hangs is ended.
func output(t *testing.T, dir string, args []string) string {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	cmd := osexec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"), "PYTHONIOENCODING=utf-8")
	var warnings strings.Builder
	cmd.Stderr = &warnings
	out, err := cmd.Output()
	if ctx.Err() != nil {
		err = errors.New("it hung and was ended")
	}
	if err != nil {
		return fmt.Sprintf("%s%s\nFAILED %v", out, warnings.String(), err)
	}
	return string(out)
}

// prepare installs what the lock files name, once per machine and contents, and returns where.
func (lang language) prepare(t *testing.T, name string) string {
	t.Helper()
	if _, err := osexec.LookPath(lang.program); err != nil {
		if os.Getenv("TIDEMARK_TEST_DRIVERS") == "all" {
			t.Fatalf("no %s here: %s", lang.program, lang.missing)
		}
		t.Skipf("no %s here: %s", lang.program, lang.missing)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	for _, f := range lang.locked {
		b, err := os.ReadFile(filepath.Join("testdata", "drivers", name, f))
		if err != nil {
			t.Fatal(err)
		}
		sum.Write(fmt.Appendf(nil, "%s %d\n%s", f, len(b), b))
	}
	dir := filepath.Join(cache, "tidemark", "drivers", name+"-"+hex.EncodeToString(sum.Sum(nil))[:12])
	if exists(filepath.Join(dir, "installed")) {
		return dir
	}
	if err := os.RemoveAll(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, f := range lang.locked {
		if err := copyFile(filepath.Join("testdata", "drivers", name, f), filepath.Join(dir, f)); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range lang.install {
		args := words(dir, step)
		fmt.Fprintf(os.Stderr, "drivers: %s: %s\n", name, strings.Join(args, " ")) // it may take a minute, once
		cmd := osexec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s\n%s", strings.Join(args, " "), err, lang.missing, out)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "installed"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

// words puts the cache folder in for DIR.
func words(dir string, args []string) []string {
	out := make([]string, len(args))
	for i, w := range args {
		out[i] = strings.ReplaceAll(w, "DIR", dir)
	}
	return out
}
