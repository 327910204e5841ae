package wire

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// scramNonceLen is the entropy of a nonce in bytes, as libpq's (SCRAM_RAW_NONCE_LEN).
const scramNonceLen = 18

// SCRAMClient is the client's side of one SCRAM-SHA-256 login (RFC 5802, RFC 7677), by password or by keys that a login of
// the same user left (SCRAM.Keys). BindChannel makes it SCRAM-SHA-256-PLUS.
//
//	state     call      next      what goes out
//	new       First     sent      SASLInitialResponse, with Mechanism
//	sent      Final     proven    SASLResponse
//	proven    Verify    done      nothing; AuthenticationOk follows
//	any       else      failed    an error
type SCRAMClient struct {
	user     string
	password string
	keys     *ClientKeys
	nonce    string
	gs2      string // header: the channel binding flag, and no authorization identity
	binding  []byte

	bare      string // client-first-message-bare
	signature []byte // what the server must say in the end
	state     scramClientState
}

type scramClientState uint8

const (
	clientNew scramClientState = iota
	clientSent
	clientProven
	clientDone
	clientFailed
)

// NewSCRAMClient begins a login as user: by keys where there are any, by the password otherwise. Keys only fit a server
// that stores the same verifier, with its salt and iterations, as the one they were recovered by.
func NewSCRAMClient(user, password string, keys *ClientKeys) (*SCRAMClient, error) {
	if keys != nil && (len(keys.ClientKey) != sha256.Size || len(keys.ServerKey) != sha256.Size) {
		return nil, fmt.Errorf("SCRAM keys: want %d bytes each", sha256.Size)
	}
	raw := make([]byte, scramNonceLen)
	if _, err := rand.Read(raw); err != nil {
		return nil, fmt.Errorf("SCRAM nonce: %w", err)
	}
	return &SCRAMClient{user: user, password: password, keys: keys, nonce: b64.EncodeToString(raw), gs2: "n,,"}, nil
}

// BindChannel ties the login to the TLS connection under it. It comes before First. data is the tls-server-end-point
// (RFC 5929) of the server's certificate, see TLSServerEndPoint; offered says whether the server offers
// SCRAM-SHA-256-PLUS. When it does not, it is told that this client could have, and refuses if somebody between the two
// took the offer out.
func (c *SCRAMClient) BindChannel(data []byte, offered bool) {
	if !offered {
		c.gs2 = "y,,"
		return
	}
	c.gs2, c.binding = gs2Bound, data
}

// Mechanism is the SASL mechanism to select.
func (c *SCRAMClient) Mechanism() string {
	if c.binding != nil {
		return MechanismSCRAMPlus
	}
	return MechanismSCRAM
}

// First is the client-first-message. The name in it is for other servers than PostgreSQL, which takes the startup packet's.
func (c *SCRAMClient) First() []byte {
	c.bare = "n=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(prepare(c.user)) + ",r=" + c.nonce
	c.state = clientSent
	return []byte(c.gs2 + c.bare)
}

// Final answers the server-first-message by the client-final-message with the proof. The error does not tell the message.
func (c *SCRAMClient) Final(serverFirst []byte) ([]byte, error) {
	if c.state != clientSent {
		return nil, c.fail("its challenge was not expected")
	}
	f := scramFields{string(serverFirst)}
	nonce, ok1 := f.next('r')
	salt64, ok2 := f.next('s')
	count, ok3 := f.next('i')
	if !ok1 || !ok2 || !ok3 {
		return nil, c.fail("its challenge is malformed")
	}
	if !strings.HasPrefix(nonce, c.nonce) || len(nonce) == len(c.nonce) || !printableNonce(nonce) {
		return nil, c.fail("its nonce does not continue the client's")
	}
	salt, err := b64.DecodeString(salt64)
	if err != nil || len(salt) == 0 {
		return nil, c.fail("its salt is malformed")
	}
	iterations, err := strconv.Atoi(count)
	keys, most := c.keys, scramMaxIterations
	if keys == nil {
		most = scramMaxDerived
	}
	if err != nil || iterations < 1 || iterations > most {
		return nil, c.fail(fmt.Sprintf("its number of iterations is not one from 1 to %d", most))
	}
	if keys == nil {
		k, err := deriveKeys(c.password, salt, iterations)
		if err != nil {
			c.state = clientFailed
			return nil, err
		}
		keys = &k
	}
	final := "c=" + b64.EncodeToString(append([]byte(c.gs2), c.binding...)) + ",r=" + nonce
	exchange := c.bare + "," + string(serverFirst) + "," + final
	c.signature = mac(keys.ServerKey, exchange)
	c.state = clientProven
	return []byte(final + ",p=" + b64.EncodeToString(proof(keys.ClientKey, storedKey(keys.ClientKey), exchange))), nil
}

// Verify reads the server-final-message: whether the server knows the verifier, and is not somebody else.
func (c *SCRAMClient) Verify(serverFinal []byte) error {
	if c.state != clientProven {
		return c.fail("its final message was not expected")
	}
	f := scramFields{string(serverFinal)}
	if reason, ok := f.next('e'); ok {
		return c.fail(fmt.Sprintf("it said %q", reason))
	}
	text, ok := f.next('v')
	if !ok {
		return c.fail("its final message is malformed")
	}
	signature, err := b64.DecodeString(text)
	if err != nil || !hmac.Equal(signature, c.signature) {
		return c.fail("it has not proven that it knows the user's verifier")
	}
	c.state = clientDone
	return nil
}

// Done says whether both sides have proven themselves. An AuthenticationOk before that is somebody else's.
func (c *SCRAMClient) Done() bool { return c.state == clientDone }

func (c *SCRAMClient) fail(why string) error {
	c.state = clientFailed
	return errors.New("SCRAM login to the server: " + why)
}
