package main

import (
	"os"
	"slices"
	"sync"
	"time"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// earlier are the processes that have handed over and may still finish transactions. Cancel requests for these come here, where the
// socket is; each process knows its own clients, so all hear of them. What is written into a pipe is a CancelRequest as the client sent
// it: it is short enough to be written whole or not at all (PIPE_BUF).
type earlier struct {
	mu    sync.Mutex // guards pipes; not held while something waits
	pipes []*os.File // the oldest first
}

// maxEarlier bounds them. Each drains for drain_timeout at most.
const maxEarlier = 8

// passOnTime bounds the delivery of one request to a process that does not read.
const passOnTime = time.Second

func (e *earlier) add(pipe *os.File) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.pipes) == maxEarlier {
		_ = e.pipes[0].Close() // nothing is lost with it
		e.pipes = slices.Delete(e.pipes, 0, 1)
	}
	e.pipes = append(e.pipes, pipe)
}

func (e *earlier) all() []*os.File {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.pipes)
}

// cancel passes on a cancel request. It forgets the processes that have ended.
func (e *earlier) cancel(pid uint32, key []byte) {
	request := wire.AppendCancelRequest(nil, pid, key)
	for _, pipe := range e.all() {
		err := pipe.SetWriteDeadline(time.Now().Add(passOnTime))
		if err == nil {
			_, err = pipe.Write(request)
		}
		if err != nil && !os.IsTimeout(err) {
			e.forget(pipe)
		}
	}
}

func (e *earlier) forget(pipe *os.File) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := slices.Index(e.pipes, pipe); i >= 0 {
		_ = pipe.Close() // its reader has gone
		e.pipes = slices.Delete(e.pipes, i, i+1)
	}
}
