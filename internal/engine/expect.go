package engine

import (
	"slices"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// Kind names the request whose reply comes next on a link.
type Kind byte

// The kinds are the requests' own message types, and Synthetic for a reply that the proxy puts in between.
const (
	Parse     Kind = 'P'
	Bind      Kind = 'B'
	Describe  Kind = 'D'
	Execute   Kind = 'E'
	Close     Kind = 'C'
	Sync      Kind = 'S'
	Query     Kind = 'Q'
	Function  Kind = 'F'
	Synthetic Kind = '+'
)

// Mute names the parts of a reply that the client does not get.
type Mute uint8

// Parts of a reply.
const (
	MuteAck    Mute = 1 << iota // ParseComplete, BindComplete, CloseComplete
	MuteDesc                    // ParameterDescription, RowDescription, NoData
	MuteRows                    // DataRow, CopyData, CopyDone, CopyOutResponse
	MuteTag                     // CommandComplete, EmptyQueryResponse, PortalSuspended
	MuteCopy                    // CopyInResponse
	MuteError                   // ErrorResponse and NoticeResponse
	MuteReady                   // ReadyForQuery
	MuteStatus                  // ParameterStatus; not of MuteAll, for what is said in the client's name may change its settings
	MuteAll    = MuteAck | MuteDesc | MuteRows | MuteTag | MuteCopy | MuteError | MuteReady
)

// Expect is one reply that a link still owes.
type Expect struct {
	Kind      Kind
	Mute      Mute
	Bytes     []byte        // Synthetic: what the client gets at this point
	Late      func() []byte // Synthetic: makes Bytes when their turn has come; nil for most
	Statement uint64        // Parse: id of the statement that the connection has if it succeeds; Bind, Describe: of the one used
	Replaces  uint64        // Parse of the unnamed statement: id of the one that the connection has until then, 0 for none that is known
	Undo      func()        // called when an error discards the request; nil for most
	Instead   *wire.Error   // the error that the client gets in place of the one that is sure to come
	Reply     *Reply        // where parts are kept for the proxy itself; nil for most
	Begins    bool          // it is of Link.Begin
	Again     bool          // Bind: the first of its batch. Sync: the batch may be sent again, see Link.Again
	Names     *Names        // what is called otherwise on the server than by the client; nil for most
	Unseen    []int         // Query: which of its statements, counted from 0, are the proxy's own; never the first
	ran       int           // ... how many have, if there are such
}

const muteUnseen = MuteDesc | MuteRows | MuteTag

// next notes that a statement of a Query is over. It says whether it was one of the proxy's own.
func (e *Expect) next() (unseen bool) {
	unseen = e.Mute&muteUnseen != 0
	e.Mute &^= muteUnseen
	if e.ran++; slices.Contains(e.Unseen, e.ran) {
		e.Mute |= muteUnseen
	}
	return unseen
}

// Reply collects what a request of the proxy's own, or one it wants to know the outcome of, was answered.
type Reply struct {
	Done   bool // ReadyForQuery, or the end of an extended request, has come
	CopyIn bool // the server waits for CopyData
	Counts bool // of an empty query: a ReadyForQuery that comes before its answer is counted, see Link.Synced
	// What the client gets of it though its kind is muted: notices, and so many command tags.
	PassNotices bool
	PassTags    uint32
	Between     func(tags int) // called behind each command tag with their number; nil for most
	Err         *wire.Error    // the first error
	Tag         string         // the last command tag
	Tags        int            // how many there were
	Desc        []byte         // body of the RowDescription or CopyInResponse
	Row         []byte         // body of the first DataRow, or of the ParameterDescription
}
