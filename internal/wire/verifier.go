package wire

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/xdg-go/stringprep"
)

// DefaultIterations is what a verifier costs that nobody gave another number (SCRAM_SHA_256_DEFAULT_ITERATIONS).
const DefaultIterations = 4096

// Bounds of verifiers (scram-common.h). A verifier may have as many iterations as PostgreSQL takes (parse_scram_secret): in a SCRAM login they
// cost only the client, whose password it is. Where keys are derived here, from a password and a number that somebody else has chosen, a second or two
// of CPU time is the most that it may cost.
const (
	scramMaxIterations = math.MaxInt32
	scramMaxDerived    = 10_000_000
	scramSaltLen       = 16
)

// Verifier is what a server stores of a SCRAM-SHA-256 password: enough to check it, not enough to log in with it.
type Verifier struct {
	Iterations int
	Salt       []byte
	StoredKey  []byte // 32 bytes
	ServerKey  []byte // 32 bytes

	mock bool
}

// errVerifier names no part of the text: it is a secret.
var errVerifier = errors.New("not a SCRAM verifier: want SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>, as in pg_authid.rolpassword")

// IsVerifier says whether a configured secret is a verifier rather than a plain password.
func IsVerifier(secret string) bool { return strings.HasPrefix(secret, MechanismSCRAM+"$") }

// ParseVerifier reads PostgreSQL's form, as in pg_authid.rolpassword.
func ParseVerifier(s string) (Verifier, error) {
	rest, ok := strings.CutPrefix(s, MechanismSCRAM+"$")
	if !ok {
		return Verifier{}, errVerifier
	}
	cost, keys, ok := strings.Cut(rest, "$")
	if !ok {
		return Verifier{}, errVerifier
	}
	iterations, salt, ok1 := strings.Cut(cost, ":")
	stored, server, ok2 := strings.Cut(keys, ":")
	if !ok1 || !ok2 {
		return Verifier{}, errVerifier
	}
	var v Verifier
	var errs [4]error
	v.Iterations, errs[0] = strconv.Atoi(iterations)
	v.Salt, errs[1] = b64.DecodeString(salt)
	v.StoredKey, errs[2] = b64.DecodeString(stored)
	v.ServerKey, errs[3] = b64.DecodeString(server)
	if errors.Join(errs[:]...) != nil || len(v.Salt) == 0 || len(v.StoredKey) != sha256.Size || len(v.ServerKey) != sha256.Size {
		return Verifier{}, errVerifier
	}
	if v.Iterations < 1 || v.Iterations > scramMaxIterations {
		return Verifier{}, fmt.Errorf("SCRAM verifier: %d iterations, want 1 to %d", v.Iterations, scramMaxIterations)
	}
	return v, nil
}

// NewVerifier makes a verifier from a plain password, with a random salt.
func NewVerifier(password string) (Verifier, error) {
	salt := make([]byte, scramSaltLen)
	if _, err := rand.Read(salt); err != nil {
		return Verifier{}, fmt.Errorf("salt of a SCRAM verifier: %w", err)
	}
	return deriveVerifier(password, salt, DefaultIterations)
}

// VerifierWithSalt makes a verifier from a plain password and a salt of the caller's, which no two passwords should share.
func VerifierWithSalt(password string, salt []byte) (Verifier, error) {
	return deriveVerifier(password, salt, DefaultIterations)
}

func deriveVerifier(password string, salt []byte, iterations int) (Verifier, error) {
	keys, err := deriveKeys(password, salt, iterations)
	if err != nil {
		return Verifier{}, err
	}
	return Verifier{Iterations: iterations, Salt: salt, StoredKey: storedKey(keys.ClientKey), ServerKey: keys.ServerKey}, nil
}

// MockVerifier stands for a user that does not exist. Its salt depends on the name and on a secret that the process keeps
// (any random bytes; the same on every proxy of a cluster, or the salt gives the difference away), so that asking twice
// tells nothing; no password fits it.
func MockVerifier(secret []byte, user string) Verifier {
	return Verifier{
		Iterations: DefaultIterations,
		Salt:       mac(secret, "salt "+user)[:scramSaltLen],
		StoredKey:  mac(secret, "stored "+user),
		ServerKey:  mac(secret, "server "+user),
		mock:       true,
	}
}

// Reveal is PostgreSQL's form: a secret, not for logs. Printed in any other way a verifier does not show.
func (v Verifier) Reveal() string {
	return fmt.Sprintf("%s$%d:%s$%s:%s", MechanismSCRAM, v.Iterations, b64.EncodeToString(v.Salt), b64.EncodeToString(v.StoredKey), b64.EncodeToString(v.ServerKey))
}

const hiddenVerifier = "[SCRAM verifier]"

// String hides it.
func (v Verifier) String() string { return hiddenVerifier }

// Format covers every verb, also those that do not ask String.
func (v Verifier) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hiddenVerifier)) } // a fmt.State keeps its own errors

// LogValue implements slog.LogValuer.
func (v Verifier) LogValue() slog.Value { return slog.StringValue(hiddenVerifier) }

// MarshalText implements encoding.TextMarshaler.
func (v Verifier) MarshalText() ([]byte, error) { return []byte(hiddenVerifier), nil }

// Costly says that the verifier has more iterations than are spent on checking a password: only SCRAM, or keys, can prove to know it.
func (v Verifier) Costly() bool { return v.Iterations > scramMaxDerived }

// CheckPassword says whether a plain password is the one that the verifier was made from, in constant time for a given
// number of iterations. None is for a costly one.
func (v Verifier) CheckPassword(password string) bool {
	if v.Costly() {
		return false
	}
	got, err := deriveVerifier(password, v.Salt, v.Iterations)
	return err == nil && hmac.Equal(got.StoredKey, v.StoredKey) && !v.mock
}

// prepare is SASLprep with PostgreSQL's exception: a password that is no UTF-8, has prohibited characters or vanishes is
// taken as it is (pg_saslprep).
func prepare(password string) string {
	if isASCII(password) || !utf8.ValidString(password) {
		return password
	}
	// RFC 3454 has the zero width space among spaces and among what is mapped to nothing; PostgreSQL takes it for a space.
	p, err := stringprep.SASLprep.Prepare(strings.ReplaceAll(password, "\u200b", " "))
	if err != nil || p == "" {
		return password
	}
	return p
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
