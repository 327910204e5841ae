// Command tidemark is the one binary of Tidemark: proxy, projector and the tools around them. This package holds flags, wiring,
// the HTTP endpoints and the demo; everything else is in the packages that it wires.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tidemarkdb/tidemark/internal/config"
)

// Exit codes.
const (
	exitFailure = 1 // something did not work
	exitUsage   = 2 // the command line or the configuration is wrong; nothing was started
)

func main() {
	os.Exit(run(os.Args[1:]))
}

// run is main with a context that ends at the first SIGINT or SIGTERM; a second one ends the process at once.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var problems config.Problems
	switch {
	case err == nil, errors.Is(err, errReported):
	case errors.As(err, &problems):
		fmt.Fprintln(os.Stderr, problems) // each line begins with its file, for editors
	default:
		fmt.Fprintf(os.Stderr, "tidemark: %v\n", err)
	}
	return exitCode(err)
}

// errReported is the error of a command that has told people already what went wrong.
var errReported = errors.New("reported")

// usageError is an error in the command line.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func exitCode(err error) int {
	var problems config.Problems
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &problems), errors.As(err, &usage):
		return exitUsage
	default:
		return exitFailure
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "tidemark",
		Short: "Many PostgreSQL servers and their read models, seen as one PostgreSQL",
		Long: `Tidemark makes many PostgreSQL servers look like one. Clients connect with psql, a driver or an ORM;
each statement goes to the shard that its key names, writes to primaries, reads to replicas. Every committed
write becomes an event on Kafka and is projected into Elasticsearch and Redis, and these read models
are queried through the same connection, never older than what the session itself wrote.

All commands read one YAML file, described in docs/config.md.`,
		Example: `  tidemark demo                      everything on this machine, with a shop to try it on
  tidemark check shop.yaml           is the file right?
  tidemark check --online shop.yaml  and does every service answer?
  tidemark proxy -c shop.yaml        serve PostgreSQL clients
  tidemark projector -c shop.yaml    publish changes and keep read models up to date`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			hint := "see tidemark --help"
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				hint = "did you mean " + strings.Join(near, " or ") + "?"
			}
			return usageError{fmt.Errorf("there is no command %q; %s", args[0], hint)}
		},
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.Version = versionLine()
	root.Flags().Bool("version", false, "print the version, as tidemark version does")
	root.SetVersionTemplate("{{.Version}}\n")
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if cmd == root && cmd.Flags().NArg() > 0 { // the flags are those of a command that there is not
			return cmd.Args(cmd, cmd.Flags().Args())
		}
		return usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
	})
	root.AddCommand(newDemo(), newProxy(), newProjector(), newDLQ(), newCheck(), newVersion())
	return root
}

// args turns an error of cobra's argument check into one that shows the way to help.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
		}
		return nil
	}
}
