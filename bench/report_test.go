package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// example has two points and three peers; the second PgBouncer failed at the second point.
func example() *result {
	command := func(int) (*exec.Cmd, error) { return nil, errors.New("not to be started") }
	return &result{
		scenario: &scenario{
			name: "select", title: "Select <only>", note: "Note.", keys: []string{"mode"}, cost: "CPU µs",
			columns: []column{{name: "tps"}, {name: "CPU µs", digits: 1, proxy: true}},
			points:  []point{{labels: []string{"simple"}}, {labels: []string{"prepared & fast"}}},
		},
		peers: []*peer{{name: "direct"}, {name: "pgbouncer-new", command: command}, {name: "tidemark", command: command}},
		samples: [][][]sample{
			{{{900, 0}, {800, 0}, {700, 0}}, {{500, 20}, {400, 40}, {500, 20}}, {{500, 30}, {400, 40}, {500, 50}}},
			{{{900, 0}}, nil, {{500, 30}}},
		},
		failures: []string{"prepared & fast: pgbouncer-new: pgbench: exit status 2\nmore"},
	}
}

func TestTable(t *testing.T) {
	want := `
## Select <only>

Note.

| mode | peer | tps | *CPU µs* | × PgBouncer |
|:--|:--|--:|--:|--:|
| simple | direct | 800 | | |
| simple | pgbouncer-new | 500 | 20.0 | 1.00 |
| simple | tidemark | 500 | 40.0 | 1.50 |
| prepared & fast | direct | 900 | | |
| prepared & fast | tidemark | 500 | 30.0 | |

Failed: prepared & fast: pgbouncer-new: pgbench: exit status 2
`
	if diff := cmp.Diff(want, example().table()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestChart(t *testing.T) {
	svg := chart([]*result{example()})
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	want := []group{{title: "select, simple: CPU µs", bars: []bar{{"tidemark", 1.5}}}}
	if diff := cmp.Diff(want, groups([]*result{example()}), cmp.AllowUnexported(group{}, bar{})); diff != "" {
		t.Errorf("bars: -want +got\n%s", diff)
	}
}

func TestLatencies(t *testing.T) {
	dir := t.TempDir()
	log := "0 1 9000 0 99 999999\n0 2 2000 0 100 500000\n1 1 failed 0 101 0\n1 2 1000 0 101 500000\n"
	if err := os.WriteFile(filepath.Join(dir, "t.1"), []byte(log), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := readLatencies(dir, time.Unix(100, 0))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]float64{1, 2}, got); diff != "" {
		t.Errorf("milliseconds: -want +got\n%s", diff)
	}
}

func TestKeepsStatements(t *testing.T) {
	for version, want := range map[string]bool{"PgBouncer 1.18.0": false, "PgBouncer 1.21.0": true, "PgBouncer 1.25.2": true, "PgBouncer 2.0": true, "?": false} {
		if got := keepsStatements(version); got != want {
			t.Errorf("%s: %v, want %v", version, got, want)
		}
	}
}
