// Package docs holds the documentation. Its tests keep it true: links lead somewhere, and docs/limits.md lists what the router
// refuses in its golden plans.
package docs

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

//go:generate go test . -run ^TestLimits$ -write

var write = flag.Bool("write", false, "write the generated part of limits.md instead of comparing it")

const generatedBelow = "<!-- Generated from router/testdata by \"go generate ./docs\"; a test fails when it differs. -->\n"

// sections are the golden files in the order of the page, with their headings.
var sections = []struct{ file, heading string }{
	{"scatter", "Reads over several shards"},
	{"write", "Writes"},
	{"copy", "COPY"},
	{"route", "Where a statement goes"},
	{"reach", "What functions, triggers and DO use"},
	{"bind", "Keys and parameters"},
	{"any", "Reference and local tables, system catalogs"},
	{"view", "Read models"},
	{"utility", "Commands and schema changes"},
}

func TestLimits(t *testing.T) {
	const page = "limits.md"
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, _, found := strings.Cut(string(got), generatedBelow)
	if !found {
		t.Fatalf("%s lacks the line\n%s", page, generatedBelow)
	}
	want := head + generatedBelow + limits(t)
	if *write {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("%s is out of date; run go generate ./docs\n(-goldens +page)\n%s", page, diff)
	}
}

// refusal is one golden plan that is refused.
type refusal struct{ sql, code, message, detail, hint string }

// limits writes a table for each golden file: every message once, with the first statement that got it.
func limits(t *testing.T) string {
	var b strings.Builder
	said := map[string]bool{}
	known := map[string]bool{}
	for _, s := range sections {
		known[s.file+".txt"] = true
		var rows []refusal
		for _, r := range refusals(t, filepath.Join("..", "router", "testdata", s.file+".txt")) {
			key := r.code + general.ReplaceAllString(r.message, " X")
			if s.file == "view" {
				key += r.detail
			}
			if r.code == "0A000" && !said[key] {
				said[key] = true
				rows = append(rows, r)
			}
		}
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n| statement | why it is refused | what to do |\n|---|---|---|\n", s.heading)
		for _, r := range rows {
			fmt.Fprintf(&b, "| `%s` | %s. %s | %s |\n", cell(r.sql), cell(capital(r.message)), cell(r.detail), cell(r.hint))
		}
	}
	files, err := filepath.Glob("../router/testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !known[filepath.Base(f)] && len(refusals(t, f)) > 0 {
			t.Errorf("%s has refusals, and no heading in docs_test.go", f)
		}
	}
	return b.String()
}

// general takes the names of the test's tables, columns and functions out of a message.
var general = regexp.MustCompile(` (public\.\w+|\w+\(\)|customer_id|id|product_search)\b`)

// refusals reads the plans of a golden file that begin with "Refuse".
func refusals(t *testing.T, file string) []refusal {
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []refusal
	for block := range strings.SplitSeq(string(src), "\n\n") {
		input, output, ok := strings.Cut(block, "\n----\n")
		if !ok || !strings.HasPrefix(output, "Refuse ") {
			continue
		}
		lines := strings.Split(input, "\n")
		for len(lines) > 0 && (lines[0] == "" || strings.HasPrefix(lines[0], "#")) {
			lines = lines[1:]
		}
		if len(lines) < 2 {
			continue
		}
		r := refusal{sql: strings.Join(lines[1:], " ")}
		for i, line := range strings.Split(output, "\n") {
			switch {
			case i == 0:
				r.code, r.message, _ = strings.Cut(strings.TrimPrefix(line, "Refuse "), ": ")
			case strings.HasPrefix(line, "  detail: "):
				r.detail = strings.TrimPrefix(line, "  detail: ")
			case strings.HasPrefix(line, "  hint: "):
				r.hint = strings.TrimPrefix(line, "  hint: ")
			}
		}
		out = append(out, r)
	}
	return out
}

func cell(s string) string {
	return strings.TrimSpace(strings.NewReplacer("|", "\\|", "\n", " ", "`", "'").Replace(s))
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

var link = regexp.MustCompile(`\]\(([^)#: ]+)(#[^)]*)?\)|src="([^":]+)"`)

// Every link to a file of the repository leads to one.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	decisions, err := filepath.Glob("decisions/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(append(pages, decisions...), "../README.md", "../ARCHITECTURE.md", "../CHANGELOG.md", "../proxy/DESIGN.md", "../internal/loop/DESIGN.md", "../internal/engine/DESIGN.md")
	links := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			links++
			target := filepath.Join(filepath.Dir(page), m[1]+m[3])
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1]+m[3], err)
			}
		}
	}
	if links < 20 {
		t.Errorf("only %d links were found; has their form changed?", links)
	}
}

// A DESIGN.md says of every file of its package where it belongs.
func TestDesignNamesEveryFile(t *testing.T) {
	pages := 0
	err := filepath.WalkDir("..", func(page string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "DESIGN.md" {
			return err
		}
		pages++
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		files, err := filepath.Glob(filepath.Join(filepath.Dir(page), "*.go"))
		for _, file := range files {
			name := filepath.Base(file)
			if !strings.HasSuffix(name, "_test.go") && !strings.Contains(string(text), "["+name+"]") && !strings.Contains(string(text), "`"+name+"`") {
				t.Errorf("%s does not name %s", page, name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if pages == 0 {
		t.Error("no DESIGN.md was found")
	}
}
