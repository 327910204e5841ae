package proxy

import (
	"math"

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
	ran  bool         // ... and has run
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
	// leaving: the session leaves its link for another server, amid a transaction: those that the proxy runs stay.
	leaving bool
	// beneath is the plan of an unnamed portal of the proxy's own, of which no server knows, and over how many requests replace it if they
	// come so far: in a transaction that has failed it makes a difference whether there is a portal. See replaces.
	over    uint16
	beneath *router.Plan
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

// put binds a name.
func (p *portals) put(name []byte, x portal) {
	if len(name) == 0 {
		p.unnamed, p.bound = x, true
		if x.link == nil {
			p.beneath = nil
		}
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
	p.unnamed, p.bound = portal{}, false
}

// replaces notes that a request to l takes the place of the unnamed portal, or takes it away: a Bind, a Close or a Query, which PostgreSQL
// runs as an unnamed portal, too. It says whether that may be one of the proxy's own.
func (s *session) replaces(l *engine.Link) bool {
	p := &s.portals
	if p.bound && p.unnamed.link == nil {
		if p.beneath, p.over = p.unnamed.plan, 0; l != nil {
			l.Kept = 0
		}
	}
	if p.beneath == nil {
		return false
	}
	if p.over < math.MaxUint16 {
		p.over++
	}
	return true
}

// portalsKnown waits, where a request of an earlier batch has yet to come so far that it replaces the unnamed portal.
func (s *session) portalsKnown(name []byte) (goesOn bool, err error) {
	if len(name) > 0 || s.portals.beneath == nil || s.batch.rebound || s.link == nil || s.link.Owed() == 0 {
		return true, nil
	}
	return s.allAnswered()
}

// queried has a Query take the unnamed portal's place. It says whether that may be one of the proxy's own.
func (s *session) queried() bool {
	replaces := s.replaces(s.link)
	s.portals.remove(nil)
	return replaces
}

// portal is that of the name, or nil. One of the proxy's own is there again where none of the requests that would have replaced it has
// come so far. It can run no more: its transaction has failed.
func (s *session) portal(name []byte) *portal {
	p, kept := &s.portals, 0
	if s.link != nil {
		kept = s.link.Kept
	}
	if len(name) == 0 && p.beneath != nil && kept >= int(p.over) {
		p.put(nil, portal{plan: p.beneath, bind: plainBind, ran: true})
	}
	return p.get(name)
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
	p.beneath = nil
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
