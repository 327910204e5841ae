package lsn

import "testing"

// FuzzToken: a token that is taken means the same when it is written and read again.
func FuzzToken(f *testing.F) {
	for _, s := range []string{"", "s1:0:0/0", "s1:3:16/B374D848,s2:4095:FFFFFFFF/FFFFFFFF", "s1:1:0/1,s1:2:0/1", ":1:0/0", "s:65536:0/0", "s:1:G/0", "a:b:c:d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, err := ParseToken(s)
		if err != nil {
			return
		}
		again, err := ParseToken(first.String())
		if err != nil || again.String() != first.String() {
			t.Fatalf("%q: %q, then %q, %v", s, first, again, err)
		}
	})
}
