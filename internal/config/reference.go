package config

import (
	"fmt"
	"io"
	"strings"
)

const referenceHead = `# Configuration

<!-- Generated from internal/config by "go generate ./internal/config"; a test fails when it differs. -->

Tidemark reads one YAML file: ` + "`tidemark proxy --config shop.yaml`" + `. [examples/shop.yaml](../examples/shop.yaml) is a complete one.
` + "`tidemark check shop.yaml`" + ` validates it, as every command does when it starts: all mistakes are
listed at once, each with its line and column. Unknown and repeated keys are mistakes.

**Environment.** ` + "`${NAME}`" + ` in a value is replaced by that environment variable, which must be set; ` + "`${NAME:-default}`" + ` has a default for when it is
unset or empty; ` + "`$$`" + ` is one dollar sign. Secrets belong there. They are never logged or printed.

**Units.** Durations are numbers with a unit: ` + "`250ms`, `5s`, `2m`, `1h30m`, `7d`" + `. Sizes are too, in powers of 1024: ` + "`512kB`, `16MB`, `1GB`" + `. Zero is refused, but as a duration for ` + "`drain_timeout`, `pool.check_delay` and `kafka.retention`" + `.

**Reuse.** YAML anchors work for whole values; top-level keys that begin with ` + "`x-`" + ` are ignored and can hold them.

**Reload.** SIGHUP, or ` + "`RELOAD`" + ` in the [admin database](admin.md), has a running proxy read the file again. It applies all of it or, where anything is
wrong or a key changed that is not marked *yes* below, nothing. Values that come from the environment are those the process was started with.

In the table, ` + "`[]`" + ` stands for each item of a list, and ` + "`NAME`" + ` for a name that you choose.

| key | what it takes | default | reload | meaning |
|---|---|---|---|---|
`

// WriteReference writes docs/config.md: every key with its kind, default and meaning.
func WriteReference(w io.Writer) error {
	var b strings.Builder
	b.WriteString(referenceHead)
	referenceRows(&b, "", new(Config).fields())
	_, err := io.WriteString(w, b.String())
	return err
}

func referenceRows(b *strings.Builder, path string, fields []field) {
	for _, f := range fields {
		at := join(path, f.key)
		def := "-"
		switch {
		case f.required:
			def = "**required**"
		case f.def != "":
			def = "`" + f.def + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", at, f.into.kind, def, reloads(at, f), f.doc)
		if f.into.beneath != nil {
			suffix, below := f.into.beneath()
			if f.into.item != "" {
				fmt.Fprintf(b, "| `%s.NAME` | %s | - | - | One of them. |\n", at, f.into.item)
			}
			referenceRows(b, at+suffix, below)
		}
	}
}

// reloads says whether RELOAD takes the key; of a section each key beneath says so.
func reloads(path string, f field) string {
	switch {
	case f.into.beneath != nil:
		return "-"
	case live(path):
		return "yes"
	}
	return "no"
}
