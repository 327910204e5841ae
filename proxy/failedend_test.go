package proxy_test

import (
	"fmt"
	"strings"
	"testing"
)

// What stands in a batch behind the end of a transaction that has failed runs as PostgreSQL runs it, on whatever server it is for, and
// however the transaction was ended: none of the batch is of that transaction any more.
func TestBatchBehindTheEndOfAFailedTransaction(t *testing.T) {
	engines(t, func(t *testing.T, engineName string) {
		for _, v := range leakVariants[1:] {
			k := newLeaks(t, v, engineName)
			p, err := k.open(0, map[string]string{"application_name": "leak"})
			if err != nil {
				t.Fatal(err)
			}
			here, there := k.keys[0][0], k.keys[len(k.keys)-1][0]
			fill := strings.NewReplacer("HERE", fmt.Sprint(here), "THERE", fmt.Sprint(there), "ROW", fmt.Sprintf("r%d", there))
			begin := "begin"
			if v.replicas > 0 {
				begin = "begin read only" // it reads there
			}
			both := func(line string) (got, want string) {
				a := parseSession(fill.Replace(line)).actions[0]
				return p.tidemark.play(a), p.plain.play(a)
			}
			n := 0
			for _, fails := range []string{"select 1/0 from leak_key where a = HERE", "[select nosuch] ; sync", "again nosuch ; sync"} {
				for i, end := range failedEnds {
					for j, behind := range behindFailedEnds {
						if n++; n%5 > 0 && i > 0 && j > 0 || v.shards > 1 && strings.HasPrefix(end, "prepare") { // there are many; and that is refused
							continue
						}
						for _, line := range []string{"parse b0 " + end + " ; sync", begin, "set local search_path = s1", "savepoint p", fails} {
							if got, want := both(line); got != want {
								t.Fatalf("%s: %s\ngot\n%swant\n%s", v.name, line, got, want)
							}
						}
						ended := []string{"run b0", "[" + end + "]", "portal q " + end}[n%3]
						batch := fmt.Sprintf("%s ; %s ; sync", ended, behind)
						if got, want := both(batch); got != want && (!strings.HasPrefix(end, "rollback to") && !strings.HasSuffix(end, "chain") || !strings.Contains(got, "  ERROR 0A000 ")) {
							t.Errorf("%s: behind %q: %s\ngot\n%swant\n%s", v.name, fails, fill.Replace(batch), got, want)
						}
						for _, line := range []string{"rollback", "select current_setting('search_path'), current_setting('work_mem')", "discard all", "delete from split_0 where a = THERE"} {
							if got, want := both(line); got != want && line != "rollback" { // which may warn
								t.Fatalf("%s: %s behind %s\ngot\n%swant\n%s", v.name, line, batch, got, want)
							}
						}
					}
				}
			}
			p.end()
		}
	})
}

var failedEnds = []string{"end", "commit", "rollback", "abort", "prepare transaction 'none'", "rollback and chain", "rollback to p"}

var behindFailedEnds = []string{
	"[select a from leak_key where a = THERE]",
	"[select a from leak_key where a = HERE]",
	"[select a, current_setting('search_path') from leak_key where b = 'ROW']",
	"[select 1]",
	"[show search_path]",
	"[]",
	"[insert into split_0 values (THERE, 'x')] ; [select b from split_0 where a = THERE]",
	"[begin] ; [insert into split_0 values (THERE, 'x')] ; [commit] ; [select a from leak_key where a = THERE]",
	"[begin] ; [select nosuch from leak_key where a = THERE] ; [select 1]",
	"[rollback] ; [select leak_x('9') from leak_key where a = THERE]",
	"[set my.x = 'kept'] ; [select current_setting('my.x') from leak_key where a = HERE]",
	"[select * from here]",
	"[select 1/0] ; sync ; [select leak_x('9') from leak_key where a = THERE]",
	"sync ; [select a from leak_key where a = THERE]",
	"run b0 ; [select a from leak_key where a = THERE]",
}
