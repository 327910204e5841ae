package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/tidemarkdb/tidemark/internal/config"
	"github.com/tidemarkdb/tidemark/replication"
)

// captureProbes has one probe for each shard that changes are captured from: its settings, the tables and their replica identity.
func captureProbes(c *config.Config) []probe {
	var probes []probe
	for _, s := range c.Shards {
		cfg, some := c.CaptureOf(s)
		if !some {
			continue
		}
		probes = append(probes, probe{name: s.Name + " capture", run: func(ctx context.Context) (string, error) {
			captured, err := replication.New(cfg, slog.New(slog.DiscardHandler))
			if err != nil {
				return "", err
			}
			findings, err := captured.Check(ctx)
			if err != nil {
				return "", err
			}
			return captureFindings(findings, len(cfg.Tables))
		}})
	}
	return probes
}

// captureFindings is an error with a line, and below it an arrow and the command, for each thing that stands in the way.
// Warnings alone are no error.
func captureFindings(findings []replication.Finding, tables int) (string, error) {
	detail := counted(tables, "table") + " can be captured"
	var problems []error
	for _, f := range findings {
		fix := f.Fix
		f.Fix = ""
		text := f.String()
		if fix != "" {
			text += "\n→ " + fix
		}
		if f.Warning {
			detail += "; " + f.String()
			continue
		}
		problems = append(problems, fmt.Errorf("%s", text))
	}
	if len(problems) > 0 {
		return "", errors.Join(problems...)
	}
	return detail, nil
}
