package proxy

import (
	"crypto/md5"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// User may come in. One without a secret exists, but no password fits: it comes in by certificate or trust only.
type User struct {
	Name   string
	Secret Secret
}

// Secret is what is known of a user's password: all of it, or only a hash. The zero Secret is none. It never prints.
type Secret struct {
	password string        // in the clear; empty: not known
	md5      string        // 32 hex digits of md5(password || user); empty: none
	verifier wire.Verifier // no iterations: none
}

// PasswordSecret is a password in the clear. The empty password is none.
func PasswordSecret(password string) Secret { return Secret{password: password} }

// VerifierSecret is a SCRAM-SHA-256 verifier.
func VerifierSecret(v wire.Verifier) Secret { return Secret{verifier: v} }

// errMD5 names no part of the text: it is a secret.
var errMD5 = errors.New("not an MD5 hash: want md5 and 32 hexadecimal digits, as in pg_authid.rolpassword")

// ParseSecret reads a secret as pg_authid.rolpassword and PgBouncer's userlist.txt have it: a SCRAM verifier, an MD5 hash, or
// else a password in the clear. The empty text is no secret. The error does not tell the text.
func ParseSecret(text string) (Secret, error) {
	switch {
	case wire.IsVerifier(text):
		v, err := wire.ParseVerifier(text)
		return Secret{verifier: v}, err
	case IsMD5(text):
		return Secret{md5: text[len("md5"):]}, nil
	}
	return Secret{password: text}, nil
}

// ParseMD5 reads an MD5 hash. The error does not tell the text.
func ParseMD5(text string) (Secret, error) {
	if !IsMD5(text) {
		return Secret{}, errMD5
	}
	return ParseSecret(text)
}

// IsMD5 says whether a text has the form of an MD5 hash (get_password_type).
func IsMD5(text string) bool {
	digits, ok := strings.CutPrefix(text, "md5")
	if !ok || len(digits) != hex.EncodedLen(md5.Size) {
		return false
	}
	return strings.Trim(digits, "0123456789abcdef") == ""
}

// Fits says whether a password in the clear is the secret's, in the same time for every wrong one.
func (s Secret) Fits(user, password string) bool {
	switch {
	case password == "":
		return false
	case s.password != "":
		return equal(s.password, password)
	case s.md5 != "":
		return equal(s.md5, md5Hex(password+user))
	case s.hasVerifier():
		return s.verifier.CheckPassword(password)
	}
	return false
}

// md5Hash is md5(password || user), which MD5 logins prove to know; ok is false where it is not known.
func (s Secret) md5Hash(user string) (hash string, ok bool) {
	if s.password != "" {
		return md5Hex(s.password + user), true
	}
	return s.md5, s.md5 != ""
}

func (s Secret) hasVerifier() bool { return s.verifier.Iterations > 0 }

func (s Secret) empty() bool { return s.password == "" && s.md5 == "" && !s.hasVerifier() }

// String is what kind of secret it is, which may be told.
func (s Secret) String() string {
	switch {
	case s.password != "":
		return "[password]"
	case s.md5 != "":
		return "[MD5 hash]"
	case s.hasVerifier():
		return "[SCRAM verifier]"
	}
	return "[none]"
}

// Format covers every verb, also those that do not ask String.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) } // a fmt.State keeps its own errors

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// md5Hex is the hash in lower-case hexadecimal digits, as PostgreSQL's MD5 method passes it on.
func md5Hex(text string) string {
	h := md5.Sum([]byte(text))
	return hex.EncodeToString(h[:])
}

// equal compares secrets in constant time for a given length.
func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
