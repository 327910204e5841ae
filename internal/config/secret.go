package config

import (
	"fmt"
	"log/slog"
)

// Secret is a password or a key. It prints as [secret] in every form: fmt's verbs, slog, JSON, YAML and text. Only Reveal
// tells it, so that a search for Reveal finds all its uses.
type Secret struct{ text string }

const hidden = "[secret]"

// NewSecret hides text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the text, for handing it to whoever authenticates with it.
func (s Secret) Reveal() string { return s.text }

// Empty says whether there is no secret.
func (s Secret) Empty() bool { return s.text == "" }

func (s Secret) String() string {
	if s.Empty() {
		return ""
	}
	return hidden
}

// Format covers all verbs, also %#v and %x, which do not ask String.
func (s Secret) Format(f fmt.State, _ rune) {
	_, _ = f.Write([]byte(s.String())) // a fmt.State keeps its own errors
}

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler, for JSON and others.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML implements yaml.Marshaler.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }
