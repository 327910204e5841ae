package config

import (
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// However a file is damaged, Parse returns a Config that converts, or Problems. Not a fuzz target, because instrumenting all
// that this package imports takes minutes.
func TestDamagedFiles(t *testing.T) {
	example, err := os.ReadFile("../../examples/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sources := []string{string(example), minimal, "", "---", "# only this", "a: &a [*a]", "? [a]\n: b", "shards: [~, 1, {}]\nusers: [[], ~]"}
	sources = append(sources, "x-a: &a {b: *a}\nviews: {v: {from: t, elastic: {mapping: *a}}}", "sharding: {tables: {t: ~, u: [], v: {key: []}}}\nviews: [~]")
	const seed, rounds = 20261124, 3000
	r := rand.New(rand.NewPCG(seed, 0))
	var valid, invalid int
	for i := range len(sources) + rounds {
		src := sources[i%len(sources)]
		if i >= len(sources) {
			src = damage(r, string(example))
		}
		c, err := Parse("f.yaml", []byte(src), func(string) (string, bool) { return "v", true })
		var problems Problems
		switch {
		case err == nil:
			valid++
			if _, err := c.ShardMap(); err != nil {
				t.Errorf("seed %d, round %d: a valid configuration has no shard map: %v\n%s", seed, i, err, src)
			}
		case !errors.As(err, &problems) || len(problems) == 0:
			t.Errorf("seed %d, round %d: error %v (%T) is no Problems\n%s", seed, i, err, err, src)
		default:
			invalid++
		}
	}
	if valid == 0 || invalid < rounds/2 {
		t.Errorf("%d files were valid, %d were not: the damage is not what it should be", valid, invalid)
	}
}

// marks mean something to YAML, or are no text at all.
const marks = ":{}[]*&!|>'\"#-$~\x00\xff\t"

// damage takes out, repeats, moves or replaces some lines and bytes.
func damage(r *rand.Rand, src string) string {
	lines := strings.SplitAfter(src, "\n")
	for range 1 + r.IntN(4) {
		i, j := r.IntN(len(lines)), r.IntN(len(lines))
		switch line := lines[i]; r.IntN(5) {
		case 0:
			lines[i] = ""
		case 1:
			lines[i] = line + lines[j]
		case 2:
			lines[i] = "  " + line
		case 3:
			lines[i], lines[j] = lines[j], line
		case 4:
			if len(line) > 0 {
				at := r.IntN(len(line))
				lines[i] = line[:at] + string(marks[r.IntN(len(marks))]) + line[at:]
			}
		}
	}
	return strings.Join(lines, "")
}
