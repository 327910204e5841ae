package proxy

import (
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/router"
)

// portal is a bound statement.
type portal struct {
	st   *statement
	plan *router.Plan
	link *engine.Link // where it was bound; nil: the proxy runs it
	bind []byte       // the Bind message, for those the proxy runs
	told bool         // Describe was asked and is to be answered when it runs
}

// portals are those of a session, by name. The unnamed one, which drivers bind for each execution, lives here: it costs
// no allocation and no map.
type portals struct {
	unnamed portal
	bound   bool // unnamed is
	named   map[string]*portal
	bytes   int // of the names, and of the messages kept
}

// get is the portal of that name, or nil. It is valid until the name is bound again or closed.
func (p *portals) get(name []byte) *portal {
	if len(name) > 0 {
		return p.named[string(name)]
	}
	if p.bound {
		return &p.unnamed
	}
	return nil
}

// put binds a name.
func (p *portals) put(name []byte, x portal) {
	if len(name) == 0 {
		p.unnamed, p.bound = x, true
		return
	}
	if p.named == nil {
		p.named = map[string]*portal{}
	}
	p.remove(name)
	p.bytes += len(name) + len(x.bind)
	kept := x // so that x itself stays off the heap
	p.named[string(name)] = &kept
}

func (p *portals) remove(name []byte) {
	if len(name) > 0 {
		if x := p.named[string(name)]; x != nil {
			p.bytes -= len(name) + len(x.bind)
			delete(p.named, string(name))
		}
		return
	}
	p.unnamed, p.bound = portal{}, false
}

// clear forgets all: their transaction has ended.
func (p *portals) clear() {
	if p.bound {
		p.remove(nil)
	}
	if len(p.named) > 0 {
		clear(p.named)
		p.bytes = 0
	}
}
