package proxy

import (
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/router"
)

// scratches are what a session plans its statements in, and one that is idle should not hold.
var scratches = loop.NewPool(func() *router.Scratch { return new(router.Scratch) })
