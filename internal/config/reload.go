package config

import (
	"fmt"
	"hash/maphash"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Entry is one value in force: of the file, or a default.
type Entry struct {
	Key   string // path, such as pool.size or users[0].name
	Value string // a secret is shown as [secret]
	Line  int    // in the file; 0 for a default
	Live  bool   // a running proxy takes a new value by RELOAD
}

// recorded is an Entry as the decoder finds it. Of a secret it has a fingerprint only, which tells whether it has changed.
type recorded struct {
	text   string
	secret bool
	line   int
}

// liveKeys are the keys that a running proxy takes by RELOAD; one that ends in a dot or a bracket stands for all beneath.
var liveKeys = []string{
	"admin.", "auth.", "clients.", "consistency.", "drain_timeout", "log.level", "pool.", "tls", "tls.", "tracing", "tracing.", "users[",
	"database.password", "database.tls", "database.ca", "database.cert", "database.key", "database.max_connections",
}

// restartKeys are exceptions from liveKeys.
var restartKeys = []string{"auth.query"}

// live says whether a running proxy takes a new value of the key.
func live(key string) bool {
	key = listIndex.ReplaceAllString(key, "[]")
	if slices.Contains(restartKeys, key) {
		return false
	}
	return slices.ContainsFunc(liveKeys, func(l string) bool {
		return key == l || strings.HasSuffix(l, ".") && strings.HasPrefix(key, l) || strings.HasSuffix(l, "[") && strings.HasPrefix(key, l)
	})
}

var listIndex = regexp.MustCompile(`\[\d+\]`)

// fingerprints are this process's own: they tell nothing to whoever sees one.
var fingerprints = maphash.MakeSeed()

// record keeps a value that was read, for Entries and Changes.
func (d *decoder) record(path, text string, secret bool, line int) {
	if d.values == nil {
		d.values = map[string]*recorded{}
	}
	if secret && text != "" {
		text = strconv.FormatUint(maphash.String(fingerprints, text), 16)
	}
	d.values[path] = &recorded{text, secret, line}
}

// Entries are all values in force, by key.
func (c *Config) Entries() []Entry {
	entries := make([]Entry, 0, len(c.values))
	for _, key := range slices.Sorted(maps.Keys(c.values)) {
		entries = append(entries, c.entry(key))
	}
	return entries
}

func (c *Config) entry(key string) Entry {
	r := c.values[key]
	if r == nil {
		return Entry{Key: key, Live: live(key)}
	}
	e := Entry{Key: key, Value: r.text, Line: r.line, Live: live(key)}
	if r.secret && r.text != "" {
		e.Value = hidden
	}
	return e
}

// Changes are the keys whose values differ between c and next, as next has them; a key that next lacks has Line 0 and no
// value.
func (c *Config) Changes(next *Config) []Entry {
	var changes []Entry
	for _, key := range slices.Sorted(maps.Keys(c.values)) {
		if n, ok := next.values[key]; !ok || n.text != c.values[key].text {
			changes = append(changes, next.entry(key))
		}
	}
	for _, e := range next.Entries() {
		if _, ok := c.values[e.Key]; !ok {
			changes = append(changes, e)
		}
	}
	return changes
}

// Reload reads c's file again. Its error is Problems when the new file is wrong, and a *RestartError when it changes what
// cannot change while the process runs. c stays as it is.
func (c *Config) Reload() (*Config, []Entry, error) {
	next, err := Load(c.File)
	if err != nil {
		return nil, nil, err
	}
	next.Warn = c.Warn
	changes := c.Changes(next)
	refused := &RestartError{File: c.File}
	for _, e := range changes {
		if !e.Live {
			refused.Entries = append(refused.Entries, e)
		}
	}
	if len(refused.Entries) > 0 {
		return nil, nil, refused
	}
	return next, changes, nil
}

// RestartError says which changes of the file a running process cannot take.
type RestartError struct {
	File    string
	Entries []Entry
}

// Error has one line per key, after one that says what to do.
func (e *RestartError) Error() string {
	var keys []string
	for _, x := range e.Entries {
		keys = append(keys, x.Key)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s needs a restart, because of %s", e.File, strings.Join(keys, ", "))
	for _, x := range e.Entries {
		at := e.File
		if x.Line > 0 {
			at = fmt.Sprintf("%s:%d", e.File, x.Line)
		}
		fmt.Fprintf(&b, "\n%s: %s: it cannot change while the process runs", at, x.Key)
	}
	return b.String()
}
