package lsn

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]LSN{"0/0": 0, "16/B374D848": 0x16B374D848, "FFFFFFFF/FFFFFFFF": 1<<64 - 1} {
		got, err := Parse(in)
		if err != nil || got != want || got.String() != in {
			t.Errorf("Parse(%q) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "16", "/", "g/0", "0/100000000"} {
		if got, err := Parse(in); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", in, got)
		}
	}
}

func TestRecordEnd(t *testing.T) {
	for insert, want := range map[LSN]LSN{
		0x1000100:                0x1000100,
		3*pageSize + 24:          3 * pageSize,
		defaultSegmentLen*2 + 40: defaultSegmentLen * 2,
	} {
		if got := RecordEnd(insert, 0); got != want {
			t.Errorf("RecordEnd(%v) = %v, want %v", insert, got, want)
		}
	}
}

func TestVersionsOrderByEpochThenPosition(t *testing.T) {
	a, err := Pack(1, 0xFFFFFFFFF8)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Pack(2, 8)
	if err != nil || a >= b || a.Digits() >= b.Digits() || a.Epoch() != 1 || a.LSN() != 0xFFFFFFFFF8 {
		t.Errorf("%v %v %v", a, b, err)
	}
	if _, err := Pack(MaxEpoch+1, 0); err == nil {
		t.Error("an epoch that does not fit was packed")
	}
	if _, err := Pack(0, 1<<54); err == nil {
		t.Error("a position that does not fit was packed")
	}
}

func TestToken(t *testing.T) {
	tok, err := ParseToken("s2:1:0/20,s1:0:0/10")
	if err != nil || tok.String() != "s1:0:0/10,s2:1:0/20" {
		t.Fatalf("%v, %v", tok, err)
	}
	tok.Add("s1", Mark{LSN: 8}) // a token never goes back
	if tok["s1"].LSN != 0x10 {
		t.Errorf("s1 went back to %v", tok["s1"])
	}
	for _, bad := range []string{"s1", "s1:0", ":0:0/1", "s1:9999:0/1", "s1:x:0/1", "s1:0:zz", strings.Repeat(",", 3)} {
		if got, err := ParseToken(bad); err == nil {
			t.Errorf("ParseToken(%q) = %v, want an error", bad, got)
		}
	}
}

func TestCovers(t *testing.T) {
	mark := Token{"s1": {Epoch: 1, LSN: 100}}
	for _, c := range []struct {
		level Token
		want  bool
	}{
		{Token{}, false},
		{Token{"s1": {Epoch: 1, LSN: 99}}, false},
		{Token{"s1": {Epoch: 1, LSN: 100}}, true},
		{Token{"s1": {Epoch: 2, LSN: 99}}, false}, // a later epoch proves nothing about the position
		{Token{"s1": {Epoch: 0, LSN: 200}}, false},
		{Token{"s1": {Epoch: 2, LSN: 100}}, true},
	} {
		if got := c.level.Covers(mark); got != c.want {
			t.Errorf("%v covers %v: %v", c.level, mark, got)
		}
	}
}
