package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidemarkdb/tidemark/internal/config"
	"github.com/tidemarkdb/tidemark/proxy"
)

//go:generate go test . -run ^TestAdminPage$ -write-admin

var writeAdmin = flag.Bool("write-admin", false, "write the generated part of docs/admin.md instead of comparing it")

const adminGenerated = "<!-- Generated from the code by \"go generate ./cmd/tidemark\"; a test fails when it differs. -->\n"

// The page about the admin database names every command, table and column, as the code has them.
func TestAdminPage(t *testing.T) {
	const page = "../../docs/admin.md"
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, _, found := strings.Cut(string(got), adminGenerated)
	if !found {
		t.Fatalf("%s lacks the line\n%s", page, adminGenerated)
	}
	want := head + adminGenerated + adminReference(t)
	if *writeAdmin {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("%s is out of date; run go generate ./cmd/tidemark\n(-code +page)\n%s", page, diff)
	}
}

func adminReference(t *testing.T) string {
	t.Helper()
	c, err := config.Parse("page.yaml", []byte("database: {name: a, user: b, password: c}\nusers: [{name: d, password: e}]\nshards: [{name: s, primary: {host: f}}]\n"), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProxyProcess(c, &sockets{}, newLogger(io.Discard, c.Log))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.engine.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	var b strings.Builder
	b.WriteString("\n## Commands\n\n| command | what it does |\n|---|---|\n")
	for _, cmd := range proxy.AdminCommands {
		fmt.Fprintf(&b, "| `%s` | %s |\n", strings.ReplaceAll(cmd.Syntax, "|", "\\|"), cmd.Doc)
	}
	types := pgtype.NewMap()
	for _, table := range p.proxy.Tables() {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| column | type | meaning |\n|---|---|---|\n", table.Name, table.Doc)
		for _, col := range table.Cols {
			typ, ok := types.TypeForOID(col.OID)
			if !ok || col.Doc == "" || strings.Contains(col.Doc, "|") {
				t.Errorf("%s.%s: no type, or no meaning that a table can show", table.Name, col.Name)
				continue
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", col.Name, typ.Name, col.Doc)
		}
	}
	return b.String()
}
