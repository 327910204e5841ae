package lsn

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
)

// Mark is the position behind a commit on one shard, in one epoch of it.
type Mark struct {
	Epoch Epoch
	LSN   LSN
}

// Less orders marks of one shard: by epoch, then by position.
func (m Mark) Less(o Mark) bool {
	if m.Epoch != o.Epoch {
		return m.Epoch < o.Epoch
	}
	return m.LSN < o.LSN
}

// ReachedBy says whether a copy at level has everything up to the mark. Both parts must have passed: a shard whose
// epoch rose because capture began anew still counts in the same positions, so the epoch alone proves nothing, and
// after a failover to a history that is shorter than the mark only a position beyond it can.
func (m Mark) ReachedBy(level Mark) bool { return level.Epoch >= m.Epoch && level.LSN >= m.LSN }

// Token is a vector of marks, one for each shard (by name) that a session wrote or saw. The zero value is empty and
// asks for nothing. A token is not safe for concurrent use.
type Token map[string]Mark

// Add joins a mark into the token; a token never goes back.
func (t Token) Add(shard string, m Mark) {
	if old, ok := t[shard]; !ok || old.Less(m) {
		t[shard] = m
	}
}

// Merge joins all marks of another token.
func (t Token) Merge(o Token) {
	for s, m := range o {
		t.Add(s, m)
	}
}

// Covers says whether a level has passed every mark of o.
func (t Token) Covers(o Token) bool {
	for s, m := range o {
		if have, ok := t[s]; !ok || !m.ReachedBy(have) {
			return false
		}
	}
	return true
}

// String is the token's wire form: "s1:1:0/16B3748,s2:1:0/16B3A00", shards in order of name.
func (t Token) String() string {
	names := make([]string, 0, len(t))
	for s := range t {
		names = append(names, s)
	}
	sort.Strings(names)
	var b strings.Builder
	for i, s := range names {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s:%d:%s", s, t[s].Epoch, t[s].LSN)
	}
	return b.String()
}

// ParseToken reads the form that String writes. An empty string is an empty token.
func ParseToken(s string) (Token, error) {
	t := Token{}
	if s == "" {
		return t, nil
	}
	for _, part := range strings.Split(s, ",") {
		f := strings.Split(part, ":")
		if len(f) != 3 || f[0] == "" {
			return nil, fmt.Errorf("token %q: want shard:epoch:lsn, separated by commas", s)
		}
		e, err := strconv.ParseUint(f[1], 10, 16)
		if err != nil || Epoch(e) > MaxEpoch {
			return nil, fmt.Errorf("token %q: epoch %q is not a number up to %d", s, f[1], MaxEpoch)
		}
		l, err := Parse(f[2])
		if err != nil {
			return nil, fmt.Errorf("token %q: %w", s, err)
		}
		t.Add(f[0], Mark{Epoch: Epoch(e), LSN: l})
	}
	return t, nil
}
