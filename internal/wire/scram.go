package wire

import (
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
)

// SASL mechanisms.
const (
	MechanismSCRAM     = "SCRAM-SHA-256"
	MechanismSCRAMPlus = "SCRAM-SHA-256-PLUS" // with channel binding
)

// ErrWrongPassword is returned by SCRAM.Final for a proof that does not fit, also for users that do not exist. Tell the
// client the same for both: 28P01, password authentication failed for user "…".
var ErrWrongPassword = errors.New("wrong password")

// SCRAM is the server's side of one SCRAM-SHA-256 login (RFC 5802, RFC 7677, as PostgreSQL runs it: the user's name
// inside the exchange is ignored in favour of the startup packet's).
//
//	state    event                   next     answer
//	start    SASLInitialResponse     first    AuthenticationSASLContinue(First)
//	first    SASLResponse, proven    done     AuthenticationSASLFinal(Final), AuthenticationOk
//	first    SASLResponse, wrong     failed   ErrWrongPassword
//	any      anything else           failed   *Error 08P01; 28000 where the binding of the channel does not hold
type SCRAM struct {
	verifier Verifier
	state    scramState
	binding  []byte // of the channel; nil: PLUS is not on offer
	only     bool   // SCRAM-SHA-256 is refused, though on offer

	gs2   string // the client's header, which its last message repeats
	bare  string // client-first-message-bare
	first string // server-first-message
	nonce string // both sides'
	keys  *ClientKeys
}

type scramState uint8

const (
	scramStart scramState = iota
	scramFirst
	scramDone
	scramFailed
)

// NewSCRAM begins a login against a user's verifier (a mock one for users that do not exist).
func NewSCRAM(v Verifier) (*SCRAM, error) {
	raw := make([]byte, scramNonceLen)
	if _, err := rand.Read(raw); err != nil {
		return nil, fmt.Errorf("SCRAM nonce: %w", err)
	}
	return &SCRAM{verifier: v, nonce: b64.EncodeToString(raw)}, nil
}

// OfferBinding puts SCRAM-SHA-256-PLUS on offer, over a TLS connection whose tls-server-end-point is data. only refuses clients
// that select SCRAM-SHA-256. It stays on the offer, because some clients (pgx) look for it before they look for PLUS.
func (s *SCRAM) OfferBinding(data []byte, only bool) { s.binding, s.only = data, only }

// Mechanisms are what AuthenticationSASL offers, the preferred one first.
func (s *SCRAM) Mechanisms() []string {
	if s.binding == nil {
		return []string{MechanismSCRAM}
	}
	return []string{MechanismSCRAMPlus, MechanismSCRAM}
}

// First takes the SASLInitialResponse and gives the data of AuthenticationSASLContinue.
func (s *SCRAM) First(m SASLInitial) ([]byte, error) {
	if s.state != scramStart {
		return nil, s.malformed("An initial response was not expected.")
	}
	var bound bool
	switch string(m.Mechanism) {
	case MechanismSCRAM:
		if s.only {
			s.state = scramFailed
			return nil, Errorf(InvalidAuthorizationSpecification, "channel binding is required").
				WithHint("Connect with channel_binding=require, by a driver that supports it.").Fatal()
		}
	case MechanismSCRAMPlus:
		if s.binding == nil {
			return nil, s.refuse(ProtocolViolation, "client selected an invalid SASL authentication mechanism")
		}
		bound = true
	default:
		return nil, s.refuse(ProtocolViolation, "client selected an invalid SASL authentication mechanism")
	}
	if m.Response == nil {
		return nil, s.malformed("The initial response is empty.")
	}
	if err := s.header(string(m.Response), bound); err != nil {
		return nil, err
	}
	f := scramFields{s.bare}
	if strings.HasPrefix(f.rest, "m=") {
		return nil, s.refuse(FeatureNotSupported, "client requires an unsupported SCRAM extension")
	}
	if _, ok := f.next('n'); !ok {
		return nil, s.malformed("The user's name is missing.")
	}
	nonce, ok := f.next('r')
	if !ok || !printableNonce(nonce) {
		return nil, s.malformed("The nonce is missing, or has characters that are not printable.")
	}
	s.nonce = nonce + s.nonce
	s.first = fmt.Sprintf("r=%s,s=%s,i=%d", s.nonce, b64.EncodeToString(s.verifier.Salt), s.verifier.Iterations)
	s.state = scramFirst
	return []byte(s.first), nil
}

// header takes the GS2 header off the client's first message. Its flag says n: the client cannot bind the channel; y: it
// could, but believes that we cannot; p: it does.
func (s *SCRAM) header(message string, bound bool) error {
	flag, rest, ok1 := strings.Cut(message, ",")
	identity, bare, ok2 := strings.Cut(rest, ",")
	if !ok1 || !ok2 {
		return s.malformed("The message ends within its header.")
	}
	switch {
	case flag != "n" && flag != "y" && !strings.HasPrefix(flag, "p="):
		return s.malformed("The channel binding flag is none of n, y and p.")
	case strings.HasPrefix(flag, "p=") && !bound:
		return s.malformed("The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.")
	case !strings.HasPrefix(flag, "p=") && bound:
		return s.malformed("The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.")
	case bound && flag+",," != gs2Bound:
		return s.refuse(ProtocolViolation, "unsupported SCRAM channel-binding type")
	case flag == "y" && s.binding != nil: // somebody between us took PLUS off the offer
		s.state = scramFailed
		return Errorf(InvalidAuthorizationSpecification, "SCRAM channel binding negotiation error").
			WithDetail("The client supports SCRAM channel binding but thinks the server does not.  However, this server does support channel binding.").Fatal()
	case strings.HasPrefix(identity, "a="):
		return s.refuse(FeatureNotSupported, "client uses authorization identity, but it is not supported")
	case identity != "":
		return s.malformed("The header has an attribute that is not known.")
	}
	s.gs2, s.bare = flag+",,", bare
	return nil
}

// Final takes the SASLResponse with the client's proof and gives the data of AuthenticationSASLFinal, which proves in turn
// that we know the user.
func (s *SCRAM) Final(response []byte) ([]byte, error) {
	if s.state != scramFirst {
		return nil, s.malformed("A response was not expected.")
	}
	message := string(response)
	f := scramFields{message}
	header, ok1 := f.next('c')
	nonce, ok2 := f.next('r')
	// Extensions may stand between the nonce and the proof, which is the last.
	at := strings.LastIndex(message, ",p=")
	if !ok1 || !ok2 || at < 0 {
		return nil, s.malformed("The client's final message lacks an attribute.")
	}
	given, err := b64.DecodeString(message[at+len(",p="):])
	if err != nil || len(given) != len(s.verifier.StoredKey) {
		return nil, s.malformed("Malformed proof in client-final-message.")
	}
	if want := b64.EncodeToString(append([]byte(s.gs2), s.boundData()...)); header != want {
		if s.gs2 != gs2Bound {
			return nil, s.refuse(ProtocolViolation, "unexpected SCRAM channel-binding attribute in client-final-message")
		}
		return nil, s.refuse(InvalidAuthorizationSpecification, "SCRAM channel binding check failed")
	}
	if !hmac.Equal([]byte(nonce), []byte(s.nonce)) {
		s.state = scramFailed
		return nil, Errorf(ProtocolViolation, "invalid SCRAM response").WithDetail("Nonce does not match.").Fatal()
	}
	exchange := s.bare + "," + s.first + "," + message[:at]
	key := proof(given, s.verifier.StoredKey, exchange)
	if right := hmac.Equal(storedKey(key), s.verifier.StoredKey); !right || s.verifier.mock {
		s.state = scramFailed
		return nil, ErrWrongPassword
	}
	s.state = scramDone
	s.keys = &ClientKeys{ClientKey: key, ServerKey: s.verifier.ServerKey}
	return []byte("v=" + b64.EncodeToString(mac(s.verifier.ServerKey, exchange))), nil
}

// boundData is what the client's last message has behind the header.
func (s *SCRAM) boundData() []byte {
	if s.gs2 == gs2Bound {
		return s.binding
	}
	return nil
}

// Done says whether the client has proven that it knows the password.
func (s *SCRAM) Done() bool { return s.state == scramDone }

// Keys are the client's keys, taken out of its proof: they log in to any server that stores the same verifier. nil until
// Done.
func (s *SCRAM) Keys() *ClientKeys { return s.keys }

func (s *SCRAM) malformed(detail string) error {
	s.state = scramFailed
	return Errorf(ProtocolViolation, "malformed SCRAM message").WithDetail("%s", detail).Fatal()
}

func (s *SCRAM) refuse(code, message string) error {
	s.state = scramFailed
	return Errorf(code, "%s", message).Fatal()
}
