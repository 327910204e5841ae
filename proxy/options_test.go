package proxy

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// What PostgreSQL 18 makes of the startup parameter "options"; it says the same of those that it refuses.
func TestOptions(t *testing.T) {
	type params = []wire.Parameter
	for options, want := range map[string]struct {
		params params
		err    string
	}{
		"":                               {},
		"-c work_mem=4MB":                {params: params{{Name: "work_mem", Value: "4MB"}}},
		"-cwork_mem=4MB --a-b=c\\ d\\\\": {params: params{{Name: "work_mem", Value: "4MB"}, {Name: "a_b", Value: "c d\\"}}},
		"-eS 2000 -fs -f h -t pl -sET --": {params: params{
			{Name: "datestyle", Value: "euro"},
			{Name: "work_mem", Value: "2000"},
			{Name: "enable_seqscan", Value: "false"},
			{Name: "enable_hashjoin", Value: "false"},
			{Name: "log_planner_stats", Value: "true"},
			{Name: "log_statement_stats", Value: "true"},
		}},
		"-v 3 -B9": {params: params{{Name: "shared_buffers", Value: "9"}}},
		"-d2 -d x -d -1": {params: params{
			{Name: "log_min_messages", Value: "debug2"},
			{Name: "log_statement", Value: "all"},
			{Name: "log_min_messages", Value: "notice"},
			{Name: "log_min_messages", Value: "notice"},
		}},
		"-Z":            {err: "invalid command-line argument for server process: -Z"},
		"foo":           {err: "invalid command-line argument for server process: foo"},
		"-e -- foo":     {err: "invalid command-line argument for server process: foo"},
		"-S":            {err: "invalid command-line argument for server process: -S"},
		"-c":            {err: "invalid command-line argument for server process: -c"},
		"-f x":          {err: "invalid command-line argument for server process: -f"},
		"-c work_mem":   {err: "-c work_mem requires a value"},
		"--work-mem -e": {err: "--work-mem requires a value"},
	} {
		got, err := parseOptions(options)
		var e *wire.Error
		switch {
		case want.err == "" && err != nil:
			t.Errorf("%q: %v", options, err)
		case want.err != "" && (!errors.As(err, &e) || e.Code != wire.SyntaxError || e.Message != want.err):
			t.Errorf("%q: %v, want %s", options, err, want.err)
		case want.err == "" && !cmp.Equal(got, want.params):
			t.Errorf("%q: %s", options, cmp.Diff(want.params, got))
		}
	}
}
