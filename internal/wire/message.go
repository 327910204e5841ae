// Package wire speaks PostgreSQL's frontend/backend protocol, versions 3.0 and 3.2, over byte slices: it finds frames,
// decodes the messages that steer a proxy without copying them, builds the messages that a proxy sends itself, and holds
// the errors, the server side of SCRAM-SHA-256 and a trace in libpq's manner.
//
// It does no input or output. Every decoder returns views into the bytes that it was given: they are valid until the
// owner of the buffer reuses it. Nothing here keeps a view.
//
// Source: PostgreSQL manual, chapter "Frontend/Backend Protocol".
package wire

// Sender is the side of a connection that a message comes from. The same type byte means different messages in the two
// directions.
type Sender uint8

// The two sides.
const (
	Frontend Sender = iota // a client, or Tidemark towards a server
	Backend                // a server, or Tidemark towards a client
)

func (s Sender) String() string {
	if s == Frontend {
		return "frontend"
	}
	return "backend"
}

// Type bytes of frontend messages (protocol.h: PqMsg_*).
const (
	MsgBind         = 'B'
	MsgClose        = 'C'
	MsgDescribe     = 'D'
	MsgExecute      = 'E'
	MsgFunctionCall = 'F'
	MsgFlush        = 'H'
	MsgParse        = 'P'
	MsgQuery        = 'Q'
	MsgSync         = 'S'
	MsgTerminate    = 'X'
	MsgCopyFail     = 'f'
	MsgPassword     = 'p' // also GSSResponse, SASLInitialResponse, SASLResponse
)

// Type bytes that both sides send.
const (
	MsgCopyDone = 'c'
	MsgCopyData = 'd'
)

// Type bytes of backend messages (protocol.h: PqMsg_*).
const (
	MsgParseComplete            = '1'
	MsgBindComplete             = '2'
	MsgCloseComplete            = '3'
	MsgNotificationResponse     = 'A'
	MsgCommandComplete          = 'C'
	MsgDataRow                  = 'D'
	MsgErrorResponse            = 'E'
	MsgCopyInResponse           = 'G'
	MsgCopyOutResponse          = 'H'
	MsgEmptyQueryResponse       = 'I'
	MsgBackendKeyData           = 'K'
	MsgNoticeResponse           = 'N'
	MsgAuthentication           = 'R'
	MsgParameterStatus          = 'S'
	MsgRowDescription           = 'T'
	MsgFunctionCallResponse     = 'V'
	MsgCopyBothResponse         = 'W'
	MsgReadyForQuery            = 'Z'
	MsgNoData                   = 'n'
	MsgPortalSuspended          = 's'
	MsgParameterDescription     = 't'
	MsgNegotiateProtocolVersion = 'v'
)

// Transaction status in ReadyForQuery.
const (
	TxIdle    = 'I' // not in a transaction
	TxOpen    = 'T' // in a transaction
	TxAborted = 'E' // in a failed transaction: statements are refused until it ends
)

// Value formats in Bind, RowDescription and COPY.
const (
	FormatText   int16 = 0
	FormatBinary int16 = 1
)

// Kinds of a Describe or Close.
const (
	KindStatement = 'S'
	KindPortal    = 'P'
)

// Limits on the length that a message declares, as PostgreSQL's own (libpq.h: PQ_SMALL_MESSAGE_LIMIT,
// PQ_LARGE_MESSAGE_LIMIT, PG_MAX_AUTH_TOKEN_LENGTH). Bytes, the length word counted, the type byte not.
const (
	SmallMessageLimit = 10_000
	LargeMessageLimit = 0x3fffffff - 1
	AuthMessageLimit  = 65_535
)

// traits of one type byte in one direction: 0 is no message at all.
type traits uint8

const (
	known traits = 1 << iota
	small        // at most SmallMessageLimit
	auth         // at most AuthMessageLimit
)

func (t traits) limit() int {
	switch {
	case t&small != 0:
		return SmallMessageLimit
	case t&auth != 0:
		return AuthMessageLimit
	}
	return LargeMessageLimit
}

// messages knows every type byte by direction.
var messages = [2][256]traits{
	Frontend: {
		MsgBind: known, MsgClose: known | small, MsgDescribe: known | small, MsgExecute: known | small,
		MsgFunctionCall: known, MsgFlush: known | small, MsgParse: known, MsgQuery: known, MsgSync: known | small,
		MsgTerminate: known | small, MsgCopyFail: known | small, MsgPassword: known | auth,
		MsgCopyDone: known | small, MsgCopyData: known,
	},
	Backend: {
		MsgParseComplete: known | small, MsgBindComplete: known | small, MsgCloseComplete: known | small,
		MsgNotificationResponse: known, MsgCommandComplete: known, MsgDataRow: known, MsgErrorResponse: known,
		MsgCopyInResponse: known, MsgCopyOutResponse: known, MsgEmptyQueryResponse: known | small,
		MsgBackendKeyData: known | small, MsgNoticeResponse: known, MsgAuthentication: known | auth,
		MsgParameterStatus: known, MsgRowDescription: known, MsgFunctionCallResponse: known, MsgCopyBothResponse: known,
		MsgReadyForQuery: known | small, MsgNoData: known | small, MsgPortalSuspended: known | small,
		MsgParameterDescription: known, MsgNegotiateProtocolVersion: known,
		MsgCopyDone: known | small, MsgCopyData: known,
	},
}
