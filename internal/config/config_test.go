package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"go.yaml.in/yaml/v4"
)

// TestGolden runs testdata/*.txt. The commands:
//
//	parse [env=(NAME=value ...)]   the whole input is a file: its problems, or "valid"
//	add                            the input is added to minimal.yaml first
//	show [key...]                  as add, then the named parts of the Config as YAML
func TestGolden(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, cmd *datadriven.TestData) string {
			env := map[string]string{}
			src := cmd.Input + "\n"
			if cmd.Cmd != "parse" {
				src = withMinimal(src)
			}
			var shown []string
			for _, arg := range cmd.CmdArgs {
				if arg.Key != "env" {
					shown = append(shown, arg.Key)
					continue
				}
				for _, pair := range arg.Vals {
					name, value, _ := strings.Cut(pair, ":")
					env[name] = value
				}
			}
			c, err := Parse("t.yaml", []byte(src), func(name string) (string, bool) { v, ok := env[name]; return v, ok })
			switch {
			case err != nil:
				return err.Error() + "\n"
			case cmd.Cmd != "show":
				return "valid\n"
			}
			return show(t, c, shown)
		})
	})
}

// minimal is the least that is valid; a case's own keys replace its keys, line for line below it.
const minimal = `database: {name: shop, user: tidemark}
users: [{name: app, password: x}]
shards: [{name: s1, primary: {host: db1}}, {name: s2, primary: {host: db2}}]
`

func withMinimal(src string) string {
	var kept strings.Builder
	for line := range strings.Lines(minimal) {
		key, _, _ := strings.Cut(line, ":")
		if strings.HasPrefix(src, key+":") || strings.Contains(src, "\n"+key+":") {
			continue
		}
		kept.WriteString(line)
	}
	return src + kept.String()
}

func show(t *testing.T, c *Config, names []string) string {
	all := map[string]any{
		"listen": c.Listen, "unix_socket": c.UnixSocket, "http": c.HTTP, "region": c.Region, "engine": c.Engine, "tls": c.TLS, "database": c.Database, "users": c.Users, "shards": c.Shards,
		"sharding": c.Sharding, "pool": c.Pool, "consistency": c.Consistency, "kafka": c.Kafka, "capture": c.Capture, "views": c.Views,
		"elasticsearch": c.Elasticsearch, "redis": c.Redis, "log": c.Log,
	}
	var b strings.Builder
	for _, name := range names {
		part, ok := all[name]
		if !ok {
			t.Fatalf("show: there is no part %s", name)
		}
		out, err := yaml.Marshal(map[string]any{name: part})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(&b, string(out))
	}
	return b.String()
}
