package loop

import (
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Pool keeps values that tasks need for a moment, so that idle tasks hold none, and that the few in use at a time stay in the
// processor's caches, whichever of many tasks comes next. Each event loop has some for its own tasks, which takes no lock; the others
// are in a sync.Pool. Make one for each type, as a package's variable.
type Pool[T any] struct {
	slot   int
	shared sync.Pool
}

// shelf is what one loop has of one pool.
type shelf struct {
	n     int
	items [8]unsafe.Pointer // items[:n]; what is behind is in use elsewhere
}

// maxPools is how many the process can have.
const maxPools = 8

var pools atomic.Int32

// NewPool makes a pool. It panics when there are too many.
func NewPool[T any](make func() *T) *Pool[T] {
	slot := int(pools.Add(1)) - 1
	if slot >= maxPools {
		panic(fmt.Sprintf("loop: more than %d pools", maxPools))
	}
	return &Pool[T]{slot: slot, shared: sync.Pool{New: func() any { return make() }}}
}

// Get takes a value, in whatever state it was put back. Only for t itself.
func (p *Pool[T]) Get(t *Task) *T {
	if v := t.unshelve(p.slot); v != nil {
		return (*T)(v)
	}
	return p.other()
}

func (p *Pool[T]) other() *T { return p.shared.Get().(*T) }

// Put gives a value back that nobody uses any more. Only for t itself.
func (p *Pool[T]) Put(t *Task, v *T) {
	if !t.shelve(p.slot, unsafe.Pointer(v)) {
		p.shared.Put(v)
	}
}

// unshelve and shelve are Get and Put of whatever type: what all pools do is one piece of code, which is in the processor's caches more often.
//
//go:noinline
func (t *Task) unshelve(slot int) unsafe.Pointer {
	s := t.shelf(slot)
	if s == nil || s.n == 0 {
		return nil
	}
	s.n--
	return s.items[s.n]
}

//go:noinline
func (t *Task) shelve(slot int, v unsafe.Pointer) bool {
	s := t.shelf(slot)
	if s == nil || s.n == len(s.items) {
		return false
	}
	s.items[s.n] = v
	s.n++
	return true
}
