package cqrs_test

import (
	"testing"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/cqrs/bustest"
)

func TestMemoryIsABus(t *testing.T) {
	bus := cqrs.NewMemory(cqrs.MemoryLimits{})
	bustest.Run(t, func(*testing.T) cqrs.Bus { return bus })
}
