package proxy

import (
	"github.com/tidemarkdb/tidemark/internal/loop"
	"github.com/tidemarkdb/tidemark/router"
)

// scratches are what a session plans its statements in, and one that is idle should not hold.
var scratches = loop.NewPool(func() *router.Scratch { return new(router.Scratch) })

// putScratch gives one back, unless it has become large: what a loop keeps for its tasks is never collected.
func (s *session) putScratch(scratch *router.Scratch) {
	if !scratch.Large() {
		scratches.Put(s.Task, scratch)
	}
}
