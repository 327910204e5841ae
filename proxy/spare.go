package proxy

import (
	"sync"

	"github.com/tidemarkdb/tidemark/router"
)

// What a session needs while it runs a statement, and one that is idle should not hold. The few that are in use at a time
// also stay in the processor's caches, whichever of many clients comes next.
var (
	scratches  = sync.Pool{New: func() any { return new(router.Scratch) }}
	spareLinks sync.Pool // of *engine.Link, given back by Free
)
