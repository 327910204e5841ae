package wire

import (
	"errors"
	"strings"

	"github.com/xdg-go/scram"
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
//	any      anything else           failed   *Error 08P01
type SCRAM struct {
	verifier Verifier
	server   *scram.ServerConversation
	state    scramState
}

type scramState uint8

const (
	scramStart scramState = iota
	scramFirst
	scramDone
	scramFailed
)

// NewSCRAM begins a login against a user's verifier (a mock one for users that do not exist). Only SCRAM-SHA-256 is
// offered, so a client that binds the channel (gs2 flag p) is refused, and n and y pass.
func NewSCRAM(v Verifier) (*SCRAM, error) {
	lookup := func(string) (scram.StoredCredentials, error) {
		return scram.StoredCredentials{
			KeyFactors: scram.KeyFactors{Salt: string(v.Salt), Iters: v.Iterations},
			StoredKey:  v.StoredKey,
			ServerKey:  v.ServerKey,
		}, nil
	}
	server, err := scram.SHA256.NewServer(lookup)
	if err != nil {
		return nil, err
	}
	return &SCRAM{verifier: v, server: server.NewConversation()}, nil
}

// First takes the SASLInitialResponse and gives the data of AuthenticationSASLContinue.
func (s *SCRAM) First(m SASLInitial) ([]byte, error) {
	if s.state != scramStart {
		return nil, s.malformed("An initial response was not expected.")
	}
	if string(m.Mechanism) != MechanismSCRAM {
		s.state = scramFailed
		return nil, Errorf(ProtocolViolation, "client selected an invalid SASL authentication mechanism").Fatal()
	}
	if m.Response == nil {
		return nil, s.malformed("The initial response is empty.")
	}
	if strings.HasPrefix(string(m.Response), "p=") {
		return nil, s.malformed("The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.")
	}
	answer, err := s.server.Step(string(m.Response))
	if err != nil {
		return nil, s.malformed(err.Error())
	}
	s.state = scramFirst
	return []byte(answer), nil
}

// Final takes the SASLResponse with the client's proof and gives the data of AuthenticationSASLFinal, which proves in turn
// that we know the user.
func (s *SCRAM) Final(response []byte) ([]byte, error) {
	if s.state != scramFirst {
		return nil, s.malformed("A response was not expected.")
	}
	answer, err := s.server.Step(string(response))
	switch {
	case answer == scram.ErrInvalidProof:
		s.state = scramFailed
		return nil, ErrWrongPassword
	case err != nil:
		return nil, s.malformed("The client's final message does not fit the exchange.")
	case s.verifier.mock || !s.server.Valid():
		s.state = scramFailed
		return nil, ErrWrongPassword
	}
	s.state = scramDone
	return []byte(answer), nil
}

// Done says whether the client has proven that it knows the password.
func (s *SCRAM) Done() bool { return s.state == scramDone }

func (s *SCRAM) malformed(detail string) error {
	s.state = scramFailed
	return Errorf(ProtocolViolation, "malformed SCRAM message").WithDetail("%s", detail).Fatal()
}
