package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/spf13/cobra"
)

// TestCommandLine runs testdata/cli/*.txt: "tidemark ARGUMENTS" prints what the command writes, its error and its exit code.
func TestCommandLine(t *testing.T) {
	datadriven.Walk(t, "testdata/cli", func(t *testing.T, path string) {
		t.Setenv(configVariable, "")
		datadriven.RunTest(t, path, func(t *testing.T, cmd *datadriven.TestData) string {
			if cmd.Cmd != "tidemark" {
				t.Fatalf("there is no test command %s", cmd.Cmd)
			}
			// The arguments are the input's words, because datadriven gives a meaning to dashes and parentheses of its own.
			return execute(t, strings.Fields(cmd.Input)...)
		})
	})
}

func execute(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	root := newRoot()
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	if err != nil {
		out.WriteString("error: " + err.Error() + "\n")
	}
	if code := exitCode(err); code != 0 {
		out.WriteString("exit code " + string(rune('0'+code)) + "\n")
	}
	return out.String()
}

// --version, which people try first, says what the version command says.
func TestVersionFlag(t *testing.T) {
	want := execute(t, "version")
	if got := execute(t, "--version"); got != want || !strings.HasPrefix(got, "tidemark ") {
		t.Errorf("--version: %q, version: %q", got, want)
	}
}

// Every command teaches: what it does at length, and how it is called.
func TestEveryCommandTeaches(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if len(cmd.Long) < 100 || cmd.Example == "" || cmd.Short == "" {
			t.Errorf("%s: expected a short and a long text and examples", cmd.CommandPath())
		}
		for line := range strings.Lines(cmd.Example) {
			if !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: example %q is not indented by two", cmd.CommandPath(), line)
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
}
