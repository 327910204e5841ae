package proxy

import (
	"strings"
	"testing"
)

// FuzzOptions: the options of a startup message are settings, or refused.
func FuzzOptions(f *testing.F) {
	for _, s := range []string{"", "-c work_mem=4MB", "-cwork_mem=4MB --search-path=a\\ b", "-c", "--x", "-c a=b=c \\", "-d 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		params, err := parseOptions(s)
		if err != nil {
			return
		}
		for _, p := range params {
			if p.Name == "" || strings.Contains(p.Name, "-") {
				t.Fatalf("%q: %q", s, params)
			}
		}
	})
}

// FuzzCommandWords: no text makes the reader of the admin database's commands panic, and no word of it is longer than it.
func FuzzCommandWords(f *testing.F) {
	for _, s := range []string{"SHOW POOLS", "show 'x", `KILL 1, "2"`, "PAUSE shop;", "RELOAD x", "RESUME \"", "RECONNECT a,b", ";"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := strings.Join(commandWords(s), ""); len(got) > len(s) {
			t.Fatalf("%q: %q", s, got)
		}
	})
}
