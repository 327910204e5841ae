package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidemarkdb/tidemark/internal/config"
)

func newCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Validate the configuration, and with --online everything that it names",
		Long: `Validates the configuration and lists all that is wrong with it at once, one line each, as
file:line:column: key: what was found, and what was expected.

With --online it then asks every service that the file names, and prints one line for each:
  PostgreSQL     logs in to every server; compares its role; on primaries, when tables are captured,
                 wal_level, free slots and each table's replica identity
  Kafka          every broker, and whether topics can be replicated as configured
  Elasticsearch  the cluster's health and version
  Redis          login and version
  TLS            the files of the tls section, and whether the certificate is valid now
An arrow shows what to do. Nothing is changed anywhere.

The exit code is 0 when all is well, 1 when a service has a problem, 2 when the file has one.
The other commands validate the file in the same way when they start.`,
		Example: `  tidemark check shop.yaml
  tidemark check --online shop.yaml
  tidemark check --online --timeout 30s -c shop.yaml`,
		Args: args(cobra.MaximumNArgs(1)),
	}
	file := configFlag(cmd)
	online := cmd.Flags().Bool("online", false, "ask every service that the file names")
	timeout := cmd.Flags().Duration("timeout", 5*time.Second, "how long one service may take to answer")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			*file = args[0]
		}
		out := cmd.OutOrStdout()
		c, err := load(*file)
		if err != nil {
			return err
		}
		say(out, "✓ %s: %s\n", c.File, summary(c))
		if !*online {
			return nil
		}
		return printFindings(out, runProbes(cmd.Context(), onlineProbes(c), *timeout))
	}
	return cmd
}

// summary says in a few words what a configuration describes.
func summary(c *config.Config) string {
	servers := 0
	for _, s := range c.Shards {
		servers += len(s.Servers())
	}
	parts := []string{counted(len(c.Shards), "shard"), counted(servers, "server"), counted(len(c.Sharding.Tables), "table")}
	if len(c.Capture.Tables) > 0 {
		parts = append(parts, fmt.Sprintf("%d captured", len(c.Capture.Tables)))
	}
	parts = append(parts, counted(len(c.Views), "view"), counted(len(c.Users), "user"))
	return strings.Join(parts, ", ")
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// onlineProbes are those of check --online: one for each service, thorough.
func onlineProbes(c *config.Config) []probe {
	return slices.Concat(postgresProbes(c), captureProbes(c), storeProbes(c), tlsProbes(c))
}

// printFindings prints a line for each, in columns, and advice below it. Its error is errReported when one failed.
func printFindings(w io.Writer, findings []finding) error {
	width, failed := 0, 0
	for _, f := range findings {
		width = max(width, len(f.name))
	}
	for _, f := range findings {
		mark, text := "✓", f.detail
		if f.err != nil {
			mark, text = "✗", strings.ReplaceAll(f.err.Error(), "\n", "\n"+strings.Repeat(" ", width+4))
			failed++
		}
		say(w, "%s %-*s  %s\n", mark, width, f.name, text)
		var a advice
		if errors.As(f.err, &a) {
			say(w, "  %-*s  → %s\n", width, "", a.do)
		}
	}
	if failed > 0 {
		say(w, "%d of %s failed\n", failed, counted(len(findings), "check"))
		return errReported
	}
	say(w, "all well: %s\n", counted(len(findings), "check"))
	return nil
}
