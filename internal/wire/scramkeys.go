package wire

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
)

// ClientKeys are what a client makes of its password for one salt and one number of iterations (RFC 5802, section 3).
// They log in, without the password, to every server that stores the verifier of that salt and those iterations, so
// they are as secret as it. They never print.
type ClientKeys struct {
	ClientKey []byte // 32 bytes: proves the client
	ServerKey []byte // 32 bytes: proves the server
}

const hiddenKeys = "[SCRAM keys]"

func (k ClientKeys) String() string { return hiddenKeys }

// Format covers every verb, also those that do not ask String.
func (k ClientKeys) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hiddenKeys)) } // a fmt.State keeps its own errors

// LogValue implements slog.LogValuer.
func (k ClientKeys) LogValue() slog.Value { return slog.StringValue(hiddenKeys) }

// MarshalText implements encoding.TextMarshaler.
func (k ClientKeys) MarshalText() ([]byte, error) { return []byte(hiddenKeys), nil }

// deriveKeys makes the keys of a password. It costs the iterations: about a millisecond for PostgreSQL's 4096.
func deriveKeys(password string, salt []byte, iterations int) (ClientKeys, error) {
	salted, err := pbkdf2.Key(sha256.New, prepare(password), salt, iterations, sha256.Size)
	if err != nil {
		return ClientKeys{}, fmt.Errorf("SCRAM keys: %w", err)
	}
	return ClientKeys{ClientKey: mac(salted, "Client Key"), ServerKey: mac(salted, "Server Key")}, nil
}

// storedKey is what a server keeps of a client key.
func storedKey(clientKey []byte) []byte {
	h := sha256.Sum256(clientKey)
	return h[:]
}

// proof is clientKey XOR its signature of the exchange; the same operation takes the key out of the proof again.
func proof(clientKey, stored []byte, exchange string) []byte {
	p := mac(stored, exchange)
	for i := range p {
		p[i] ^= clientKey[i]
	}
	return p
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// scramFields walks through the attributes of a SCRAM message: k=value, separated by commas.
type scramFields struct{ rest string }

// next takes the next attribute if it is k.
func (f *scramFields) next(k byte) (value string, ok bool) {
	if len(f.rest) < 2 || f.rest[0] != k || f.rest[1] != '=' {
		return "", false
	}
	value, f.rest, _ = strings.Cut(f.rest[2:], ",")
	return value, true
}

// printableNonce says whether a nonce has the characters that RFC 5802 allows: printable ASCII but the comma.
func printableNonce(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x21 || c > 0x7e || c == ',' {
			return false
		}
	}
	return s != ""
}

var b64 = base64.StdEncoding
