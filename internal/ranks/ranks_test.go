// Package ranks holds the order of Tidemark's packages: a package imports only packages of lower rank (ARCHITECTURE.md explains the ranks).
package ranks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/tidemarkdb/tidemark"

// rank is a package's place, for itself and the folders below it that have no place of their own. Equal ranks do not import each other.
var rank = map[string]int{
	"internal/wire": 0, "internal/loop": 0, "internal/sql": 0, "internal/lsn": 0, "internal/otlp": 0, "sharding": 0,
	"router": 1, "internal/backend": 1,
	"internal/twophase": 2, "replication": 2, "internal/notify": 2,
	"cqrs":       3,
	"cqrs/kafka": 4, "cqrs/elastic": 4, "cqrs/redis": 4, "internal/engine": 4,
	"proxy":           5,
	"internal/config": 6,
	"cmd":             7, "bench": 7, "examples": 7,
}

// side packages stand beside the ranks: these are all they may import of Tidemark. Ranks up to 6 do not import them.
var side = map[string][]string{
	"migrations":          {"sharding", "internal/backend", "internal/lsn", "internal/loop", "internal/wire"},
	"internal/localstack": {},
	"testcontainers":      {"internal/localstack"},
	"internal/collector":  {},
	"internal/ranks":      {},
	"docs":                {},
}

// free packages are tests of everything; nothing imports them.
var free = []string{"internal/e2e"}

// forTests may be imported by every package's tests.
var forTests = []string{"testcontainers", "internal/localstack", "internal/collector"}

// goPackage is what go list says of a package.
type goPackage struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

// place returns the longest entry of the tables that path is or lies below, "" when there is none.
func place(path string) string {
	path = strings.TrimPrefix(path, module+"/")
	for ; path != "" && path != "."; path = path[:max(0, strings.LastIndexByte(path, '/'))] {
		_, ranked := rank[path]
		_, beside := side[path]
		if ranked || beside || slices.Contains(free, path) {
			return path
		}
	}
	return ""
}

// violations lists what breaks the order among packages, one line each.
func violations(packages []goPackage) []string {
	var found []string
	for _, p := range packages {
		from := place(p.ImportPath)
		if from == "" {
			found = append(found, p.ImportPath+" has no rank: add it to the table in internal/ranks")
			continue
		}
		for _, i := range p.Imports {
			if to, ok := target(i); ok && !allowed(from, to) {
				found = append(found, fmt.Sprintf("%s (%s) imports %s (%s)", p.ImportPath, describe(from), i, describe(to)))
			}
		}
		for _, i := range slices.Concat(p.TestImports, p.XTestImports) {
			if to, ok := target(i); ok && !allowed(from, to) && !slices.Contains(forTests, to) {
				found = append(found, fmt.Sprintf("a test of %s (%s) imports %s (%s)", p.ImportPath, describe(from), i, describe(to)))
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func target(path string) (string, bool) {
	if !strings.HasPrefix(path, module+"/") {
		return "", false
	}
	return place(path), true
}

func allowed(from, to string) bool {
	switch {
	case from == to || slices.Contains(free, from):
		return true
	case slices.Contains(free, to):
		return false
	}
	if allow, ok := side[from]; ok {
		return slices.Contains(allow, to)
	}
	if _, ok := side[to]; ok {
		return rank[from] == 7
	}
	return rank[to] < rank[from]
}

func describe(place string) string {
	if r, ok := rank[place]; ok {
		return fmt.Sprintf("rank %d", r)
	}
	if _, ok := side[place]; ok {
		return "beside the ranks"
	}
	return "no rank"
}

// touchSources looks at every Go file, so that go test does not answer from its cache after one of them changed: it cannot see what go list reads.
func touchSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") {
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestImportsFollowRanks(t *testing.T) {
	touchSources(t)
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	if len(packages) < 10 {
		t.Fatalf("go list names %d packages only", len(packages))
	}
	for _, v := range violations(packages) {
		t.Error(v)
	}
}

func TestViolations(t *testing.T) {
	imports := func(from string, to ...string) goPackage {
		p := goPackage{ImportPath: module + "/" + from}
		for _, path := range to {
			p.Imports = append(p.Imports, module+"/"+path)
		}
		return p
	}
	inTest := goPackage{ImportPath: module + "/router", XTestImports: []string{module + "/testcontainers", module + "/proxy", "testing"}}
	for _, c := range []struct {
		name string
		p    goPackage
		want []string
	}{
		{"down", imports("proxy", "router", "internal/engine", "internal/wire"), nil},
		{"its own folders", imports("cmd/tidemark", "cmd/tidemark/shop", "proxy", "internal/localstack"), nil},
		{"up", imports("router", "proxy"), []string{"router (rank 1) imports proxy (rank 5)"}},
		{"sideways", imports("cqrs/kafka", "cqrs", "cqrs/redis"), []string{"cqrs/kafka (rank 4) imports cqrs/redis (rank 4)"}},
		{"rank 0 to rank 0", imports("internal/sql", "internal/lsn"), []string{"internal/sql (rank 0) imports internal/lsn (rank 0)"}},
		{"to the side", imports("proxy", "testcontainers"), []string{"proxy (rank 5) imports testcontainers (beside the ranks)"}},
		{"from the side", imports("migrations", "internal/backend", "proxy"), []string{"migrations (beside the ranks) imports proxy (rank 5)"}},
		{"unknown", imports("internal/util"), []string{"internal/util has no rank: add it to the table in internal/ranks"}},
		{"tests may use services only", inTest, []string{"a test of router (rank 1) imports proxy (rank 5)"}},
		{"end to end", imports("internal/e2e", "cmd/tidemark", "testcontainers"), nil},
		{"of end to end", imports("cmd/tidemark", "internal/e2e"), []string{"cmd/tidemark (rank 7) imports internal/e2e (no rank)"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := violations([]goPackage{c.p})
			for i := range got {
				got[i] = strings.ReplaceAll(got[i], module+"/", "")
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
