package config

import (
	"bytes"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var writeReference = flag.Bool("write-reference", false, "write docs/config.md instead of comparing it")

func TestReferenceIsCurrent(t *testing.T) {
	const path = "../../docs/config.md"
	var want bytes.Buffer
	if err := WriteReference(&want); err != nil {
		t.Fatal(err)
	}
	if *writeReference {
		if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), string(got)); diff != "" {
		t.Errorf("%s is out of date; run go generate ./internal/config\n(-code +file)\n%s", path, diff)
	}
}

// Every field has a meaning that ends as a sentence, and a default that its own value takes.
func TestFieldsAreComplete(t *testing.T) {
	var walk func(path string, fields []field)
	walk = func(path string, fields []field) {
		seen := map[string]bool{}
		for _, f := range fields {
			at := join(path, f.key)
			if seen[f.key] {
				t.Errorf("%s: there are two fields of this key", at)
			}
			seen[f.key] = true
			if !strings.HasSuffix(f.doc, ".") || strings.Contains(f.doc, "|") {
				t.Errorf("%s: doc %q is not a sentence, or holds the table's bar", at, f.doc)
			}
			if (f.into.text == nil) == (f.into.node == nil) {
				t.Errorf("%s: expected a reader for a scalar or for a node", at)
			}
			if f.def != "" {
				if f.required {
					t.Errorf("%s: it is required and has a default", at)
				}
				if err := f.into.text(f.def); err != nil {
					t.Errorf("%s: default %q: %v", at, f.def, err)
				}
			}
			if f.into.beneath != nil {
				suffix, below := f.into.beneath()
				walk(at+suffix, below)
			}
		}
	}
	walk("", new(Config).fields())
}

// The example is valid with nothing but the variables that it says it needs, and shows every section.
func TestExampleIsValid(t *testing.T) {
	const path = "../../examples/shop.yaml"
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"SHOP_PASSWORD": "a", "SHOP_DB_PASSWORD": "b"}
	if _, err := Parse(path, src, func(name string) (string, bool) { v, ok := env[name]; return v, ok }); err != nil {
		t.Error(err)
	}
	for _, f := range new(Config).fields() {
		if !regexp.MustCompile(`(?m)^(# ?)?` + f.key + `:`).Match(src) {
			t.Errorf("%s does not show the key %s", path, f.key)
		}
	}
}
