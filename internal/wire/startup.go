package wire

import (
	"encoding/binary"
	"errors"
	"strings"
)

// Codes in the first word of a startup packet (pqcomm.h).
const (
	codeCancelRequest = 1234<<16 | 5678
	codeSSLRequest    = 1234<<16 | 5679
	codeGSSENCRequest = 1234<<16 | 5680
)

// Protocol versions: major<<16 | minor.
const (
	Protocol30 = 3 << 16
	Protocol32 = 3<<16 | 2 // long cancel keys
)

// MaxStartupLen bounds a startup packet (pqcomm.h: MAX_STARTUP_PACKET_LENGTH), its length word included.
const MaxStartupLen = 10_000

// MaxCancelKeyLen bounds a cancel key in protocol 3.2; in 3.0 it has 4 bytes.
const MaxCancelKeyLen = 256

// TLSHandshake is the first byte of a TLS ClientHello: a client that negotiates TLS directly (PostgreSQL 17) sends it in
// place of a startup packet.
const TLSHandshake = 0x16

// StartupKind is which of the packets without a type byte it is.
type StartupKind uint8

// The startup family.
const (
	StartupMessage StartupKind = iota
	SSLRequest
	GSSENCRequest
	CancelRequest
)

// Startup is a packet of the startup family, the only ones without a type byte.
type Startup struct {
	Kind    StartupKind
	Version uint32      // StartupMessage: major<<16 | minor; also of one that we do not speak
	Params  []Parameter // StartupMessage: in the order sent; copies
	PID     uint32      // CancelRequest
	Key     []byte      // CancelRequest: a view
}

// Parameter is a name and a value, as in StartupMessage and ParameterStatus.
type Parameter struct{ Name, Value string }

// Get is the last value sent for a parameter, which is the one that counts.
func (s *Startup) Get(name string) (value string, ok bool) {
	for _, p := range s.Params {
		if p.Name == name {
			value, ok = p.Value, true
		}
	}
	return value, ok
}

// User and Database are who wants in and where, cut as PostgreSQL cuts them. The database is the user's name when none was given.
func (s *Startup) User() string {
	u, _ := s.Get("user")
	return u[:min(len(u), maxName)]
}

// Database is the database asked for, or the user's name.
func (s *Startup) Database() string {
	if d, _ := s.Get("database"); d != "" {
		return d[:min(len(d), maxName)]
	}
	return s.User()
}

// maxName is how many bytes of a name count (NAMEDATALEN - 1).
const maxName = 63

// Negotiate says what to answer with NegotiateProtocolVersion: the newest minor version we speak, and the protocol
// options (_pq_.*) that we do not know. needed is false when the client asked for nothing new.
func (s *Startup) Negotiate() (minor uint16, unknown []string, needed bool) {
	minor = min(uint16(s.Version), uint16(Protocol32&0xffff))
	for _, p := range s.Params {
		if strings.HasPrefix(p.Name, "_pq_.") {
			unknown = append(unknown, p.Name)
		}
	}
	return minor, unknown, minor < uint16(s.Version) || len(unknown) > 0
}

var (
	errStartupLength = errors.New("invalid length of startup packet")
	errCancelLength  = errors.New("invalid length of cancel request packet")
)

// NextStartup decodes the startup packet at the start of b. n is its length in bytes; n is 0 and need is the total
// number of bytes wanted while it is incomplete. err is a FATAL *Error: 08P01 for a packet that cannot be, 0A000 for a
// protocol we do not speak, 28000 for a missing user. It is none of these where the length cannot be: as PostgreSQL does, hang up without
// a word on what speaks another protocol, or has changed its mind and says Terminate.
func NextStartup(b []byte) (s Startup, n, need int, err error) {
	if len(b) < 4 {
		return s, 0, 4, nil
	}
	size := binary.BigEndian.Uint32(b)
	if size < 8 || size > MaxStartupLen {
		return s, 0, 0, errStartupLength
	}
	if len(b) < 8 {
		return s, 0, int(size), nil
	}
	code := binary.BigEndian.Uint32(b[4:])
	switch code {
	case codeSSLRequest, codeGSSENCRequest:
		if size != 8 {
			return s, 0, 0, errStartupLength
		}
	case codeCancelRequest:
		if size <= 12 || size > 12+MaxCancelKeyLen {
			return s, 0, 0, errCancelLength
		}
	default:
		if code>>16 != 3 {
			s.Version = code
			return s, 0, 0, Errorf(FeatureNotSupported, "unsupported frontend protocol %d.%d: server supports 3.0 to 3.2", code>>16, code&0xffff).Fatal()
		}
	}
	if len(b) < int(size) {
		return s, 0, int(size), nil
	}
	body := b[8:size:size]
	switch code {
	case codeSSLRequest:
		s.Kind = SSLRequest
	case codeGSSENCRequest:
		s.Kind = GSSENCRequest
	case codeCancelRequest:
		s.Kind, s.PID, s.Key = CancelRequest, binary.BigEndian.Uint32(body), body[4:]
	default:
		s.Version = code
		if s.Params, err = decodeParameters(body); err != nil {
			return Startup{}, 0, 0, err
		}
		if s.User() == "" {
			return Startup{}, 0, 0, Errorf(InvalidAuthorizationSpecification, "no PostgreSQL user name specified in startup packet").Fatal()
		}
	}
	return s, int(size), 0, nil
}

func decodeParameters(body []byte) ([]Parameter, error) {
	var ps []Parameter
	r := reader{b: body}
	for {
		name := r.cstring()
		if r.bad || len(name) == 0 {
			break
		}
		value := r.cstring()
		ps = append(ps, Parameter{string(name), string(value)})
	}
	if r.bad || len(r.b) > 0 {
		return nil, Errorf(ProtocolViolation, "invalid startup packet layout: expected terminator as last byte").Fatal()
	}
	return ps, nil
}

// AppendStartupMessage appends a StartupMessage of the given protocol version.
func AppendStartupMessage(dst []byte, version uint32, params []Parameter) []byte {
	at := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, 0)
	dst = binary.BigEndian.AppendUint32(dst, version)
	for _, p := range params {
		dst = appendCString(appendCString(dst, p.Name), p.Value)
	}
	return finish(append(dst, 0), at)
}

// AppendSSLRequest appends an SSLRequest; the answer is one byte, 'S' or 'N'.
func AppendSSLRequest(dst []byte) []byte { return appendRequest(dst, codeSSLRequest) }

// AppendGSSENCRequest appends a GSSENCRequest; the answer is one byte, 'G' or 'N'.
func AppendGSSENCRequest(dst []byte) []byte { return appendRequest(dst, codeGSSENCRequest) }

func appendRequest(dst []byte, code uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(dst, 8), code)
}

// AppendCancelRequest appends a CancelRequest for the process that BackendKeyData named.
func AppendCancelRequest(dst []byte, pid uint32, key []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(12+len(key)))
	dst = binary.BigEndian.AppendUint32(dst, codeCancelRequest)
	dst = binary.BigEndian.AppendUint32(dst, pid)
	return append(dst, key...)
}
