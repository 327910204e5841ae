package proxy

import (
	"github.com/tidemarkdb/tidemark/internal/engine"
	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
)

// portal is a bound statement.
type portal struct {
	st   *statement
	plan *router.Plan
	link *engine.Link // where it was bound; nil: the proxy runs it
	bind []byte       // the Bind message, for those the proxy runs
	name string       // of one that the proxy runs
	ran  bool         // it has been executed, if nothing went wrong
	gone bool         // a Query has made its own of this name since
	told bool         // Describe was asked and is to be answered when it runs
	// last is the reply to the Bind of what ends a transaction that goes on elsewhere, or to the last Execute of one with a name in a transaction
	// that may move; nil: not asked for.
	last *engine.Reply
}

// portals are those of a session, by name. The unnamed one, which drivers bind for each execution, lives here: it costs
// no allocation and no map.
type portals struct {
	unnamed portal
	named   map[string]*portal
	bytes   uint32 // of the names, and of the messages kept: at most maxPortalBytes and one message
	bound   bool   // unnamed is
	// own: it has been one that the proxy runs, and still is where each Bind since has failed.
	own bool
	// leaving: the session leaves its link for another server, amid a transaction: those that the proxy runs stay.
	leaving bool
}

// maxName is how much of the name of a statement or portal counts, in bytes (NAMEDATALEN, less its end).
const maxName = 63

func shortened(name []byte) []byte { return name[:min(len(name), maxName)] }

func errNoPortal(name string) *wire.Error {
	return wire.Errorf(wire.InvalidCursorName, "portal \"%s\" does not exist", name)
}

// get is the portal of that name, or nil. It is valid until the name is bound again or closed.
func (p *portals) get(name []byte) *portal {
	if len(name) > 0 {
		return p.named[string(shortened(name))]
	}
	if p.bound {
		return &p.unnamed
	}
	return nil
}

// uncertain says whether the unnamed portal may be one of the proxy's own that a server's has not replaced after all.
func (p *portals) uncertain() bool { return p.own && p.bound && p.unnamed.link != nil }

// put binds a name.
func (p *portals) put(name []byte, x portal) {
	if len(name) == 0 {
		p.unnamed, p.bound, p.own = x, true, p.own || x.link == nil
		return
	}
	if p.named == nil {
		p.named = map[string]*portal{}
	}
	name = shortened(name)
	p.remove(name)
	p.bytes += uint32(len(name) + len(x.bind))
	kept := x // so that x itself stays off the heap
	p.named[string(name)] = &kept
}

func (p *portals) remove(name []byte) {
	if len(name) > 0 {
		name = shortened(name)
		if x := p.named[string(name)]; x != nil {
			p.bytes -= uint32(len(name) + len(x.bind))
			delete(p.named, string(name))
		}
		return
	}
	p.unnamed, p.bound, p.own = portal{}, false, false
}

// queried has a Query end the unnamed portal, as the server does with its own: PostgreSQL runs that as an unnamed portal, too. Where the
// transaction fails there still is one.
func (p *portals) queried() {
	if x := &p.unnamed; p.bound && x.link == nil {
		x.ran, x.gone = true, true
	} else {
		p.own = false
	}
}

// open says whether a portal on the link has a name and, as far as is known, more rows: it would be lost elsewhere.
func (p *portals) open(l *engine.Link) bool {
	for _, x := range p.named {
		if x.link == l && (x.last == nil || x.last.Tags == 0) {
			return true
		}
	}
	return false
}

// any says whether there are any.
func (p *portals) any() bool { return p.bound || len(p.named) > 0 }

// clear forgets all: their transaction has ended. Or those of the server that the session leaves.
func (p *portals) clear() {
	if p.bound && !(p.leaving && p.unnamed.link == nil) {
		p.remove(nil)
	}
	if p.leaving {
		for name, x := range p.named {
			if x.link != nil {
				p.bytes -= uint32(len(name) + len(x.bind))
				delete(p.named, name)
			}
		}
		return
	}
	if len(p.named) > 0 {
		clear(p.named)
		p.bytes = 0
	}
}
