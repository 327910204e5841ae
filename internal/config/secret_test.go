package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

func TestSecretIsNeverPrinted(t *testing.T) {
	const password = "hunter2"
	src := withMinimal("database: {name: shop, user: u, password: hunter2}\nusers: [{name: app, password: hunter2}]\nredis: {password: hunter2}\n")
	c, err := Parse("t.yaml", []byte(src), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Users[0].Password.Reveal(); got != password {
		t.Fatalf("Reveal() = %q, want %q", got, password)
	}
	outputs := map[string]func(*bytes.Buffer, any) error{
		"slog text": func(b *bytes.Buffer, v any) error {
			slog.New(slog.NewTextHandler(b, nil)).Info("m", "v", v)
			return nil
		},
		"slog json": func(b *bytes.Buffer, v any) error {
			slog.New(slog.NewJSONHandler(b, nil)).Info("m", "v", v)
			return nil
		},
		"json": func(b *bytes.Buffer, v any) error { return json.NewEncoder(b).Encode(v) },
		"yaml": func(b *bytes.Buffer, v any) error { return yaml.NewEncoder(b).Encode(v) },
		"error": func(b *bytes.Buffer, v any) error {
			b.WriteString(errors.Join(fmt.Errorf("%v", v)).Error())
			return nil
		},
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		outputs[verb] = func(b *bytes.Buffer, v any) error { _, err := fmt.Fprintf(b, verb, v); return err }
	}
	hex := fmt.Sprintf("%x", password)
	for name, write := range outputs {
		for _, v := range []any{*c, c.Users, c.Users[0].Password, &c.Users[0].Password, c.Database, map[string]any{"p": c.Redis.Password}} {
			var b bytes.Buffer
			if err := write(&b, v); err != nil {
				t.Errorf("%s of %T: %v", name, v, err)
			}
			if s := b.String(); strings.Contains(s, password) || strings.Contains(strings.ToLower(s), hex) {
				t.Errorf("%s of %T shows the secret: %s", name, v, s)
			}
		}
	}
}
