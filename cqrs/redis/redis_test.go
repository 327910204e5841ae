package redis_test

import (
	"testing"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/cqrs/cqrstest"
	"github.com/tidemarkdb/tidemark/cqrs/redis"
)

func TestConformance(t *testing.T) {
	for name, base := range map[string]redis.Config{
		"hash":   {Mode: redis.Hash},
		"json":   {Mode: redis.JSON},
		"slices": {Mode: redis.Hash, Slices: 5, Prefix: "other:"},
	} {
		t.Run(name, func(t *testing.T) {
			cqrstest.Suite{Addr: server(t), Open: func(t *testing.T, name string, cols []cqrs.Column, addr string) cqrstest.Store {
				cfg := base
				cfg.Name, cfg.Columns, cfg.URL = name, cols, "redis://"+addr
				m, err := redis.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				return m
			}}.Run(t)
		})
	}
}
