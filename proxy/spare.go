package proxy

import (
	"sync"

	"github.com/tidemarkdb/tidemark/router"
)

// scratches are what a session plans its statements in, and one that is idle should not hold. The few that are in use at a
// time also stay in the processor's caches, whichever of many clients comes next.
var scratches = sync.Pool{New: func() any { return new(router.Scratch) }}
