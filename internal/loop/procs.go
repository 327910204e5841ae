package loop

import (
	"runtime"
	"sync"
)

// procsAtStart is GOMAXPROCS before any engine raised it, so that a second engine does not count the first one's extra.
var procsAtStart = runtime.GOMAXPROCS(0)

var procs struct {
	sync.Mutex     // guards loops, and raising GOMAXPROCS
	loops      int // running loops of all engines of the process
}

// reserveProcs accounts for n more loops and keeps GOMAXPROCS above the number of loops. With as many Ps as busy loops an
// ordinary goroutine waits for the 10 ms preemption tick of the runtime again and again (43 to 52 ms for a sleep and
// a round trip, measured; 1.4 ms with one P to spare). It is never lowered: that would stop the world for nothing.
func reserveProcs(n int) {
	procs.Lock()
	defer procs.Unlock()
	procs.loops += n
	if want := procs.loops + 1; runtime.GOMAXPROCS(0) < want {
		runtime.GOMAXPROCS(want)
	}
}

func releaseProcs(n int) {
	procs.Lock()
	defer procs.Unlock()
	procs.loops -= n
}
