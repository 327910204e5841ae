package main

import (
	"io"
	"log/slog"

	"github.com/tidemarkdb/tidemark/internal/config"
)

// logLevel is the least level that is written; a reload changes it.
var logLevel slog.LevelVar

func setLogLevel(c config.Log) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // the configuration allows slog's own names only
	}
	logLevel.Set(level)
}

// newLogger writes to w in the form and from the level that the configuration asks for.
func newLogger(w io.Writer, c config.Log) *slog.Logger {
	setLogLevel(c)
	options := &slog.HandlerOptions{Level: &logLevel}
	if c.Format == config.LogJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
