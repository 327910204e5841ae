package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/tidemarkdb/tidemark/internal/config"
)

// configVariable names the configuration where no flag does.
const configVariable = "TIDEMARK_CONFIG"

// configFlag adds --config to a command; the value is valid once the command runs.
func configFlag(cmd *cobra.Command) *string {
	return cmd.Flags().StringP("config", "c", "", "configuration file; $"+configVariable+", or tidemark.yaml, when not given")
}

// load reads the configuration that the flag, the environment or the default names.
func load(flag string) (*config.Config, error) {
	path := flag
	if path == "" {
		path = os.Getenv(configVariable)
	}
	if path == "" {
		path = "tidemark.yaml"
		if _, err := os.Stat(path); err != nil {
			return nil, usageError{fmt.Errorf("no configuration: give one with --config FILE or $%s; examples/shop.yaml is one to begin with", configVariable)}
		}
	}
	c, err := config.Load(path)
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}
