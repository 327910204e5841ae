package sharding

import (
	"encoding/hex"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
)

type vector struct {
	line      string
	typ       KeyType
	text, bin []byte
	hash      uint64
	bucket    int
}

// vectors reads testdata/vectors.txt, which testdata/vectors.sql printed from a real PostgreSQL.
func vectors(t testing.TB) []vector {
	t.Helper()
	data, err := os.ReadFile("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	var vs []vector
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		f := strings.Split(line, "|")
		if len(f) != 5 {
			t.Fatalf("vectors.txt: %q: want 5 fields", line)
		}
		v := vector{line: line, text: []byte(strings.NewReplacer("%7C", "|", "%0A", "\n", "%25", "%").Replace(f[1]))}
		if v.typ, err = ParseKeyType(f[0]); err != nil {
			t.Fatal(err)
		}
		if v.bin, err = hex.DecodeString(f[2]); err != nil {
			t.Fatal(err)
		}
		if v.hash, err = strconv.ParseUint(f[3], 10, 64); err != nil {
			t.Fatal(err)
		}
		if v.bucket, err = strconv.Atoi(f[4]); err != nil {
			t.Fatal(err)
		}
		vs = append(vs, v)
	}
	return vs
}

func TestHashAgreesWithPostgreSQL(t *testing.T) {
	m, err := New(Definition{Shards: []Shard{{Name: "a", Buckets: []Range{{0, 4095}}}}})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[KeyType]int{}
	for _, v := range vectors(t) {
		seen[v.typ]++
		for format, value := range map[Format][]byte{TextFormat: v.text, BinaryFormat: v.bin} {
			h, err := Hash(v.typ, value, format)
			if err != nil {
				t.Errorf("%s: format %d: %v", v.line, format, err)
				continue
			}
			if h != v.hash || m.Bucket(h) != v.bucket {
				t.Errorf("%s: format %d: hash %d, bucket %d", v.line, format, h, m.Bucket(h))
			}
		}
	}
	for typ := Int2; typ.Valid(); typ++ {
		if seen[typ] < 4 {
			t.Errorf("vectors.txt has %d vectors of type %s, want 4 at least", seen[typ], typ)
		}
	}
}

func TestValuesRefused(t *testing.T) {
	unsupported, invalid := ErrUnsupportedValue, ErrValue
	for _, c := range []struct {
		typ   KeyType
		value string
		want  error
		code  string
	}{
		{Int8, "", invalid, "22P02"},
		{Int8, "abc", invalid, "22P02"},
		{Int8, "1.0", invalid, "22P02"},
		{Int8, "1 2", invalid, "22P02"},
		{Int8, "--1", invalid, "22P02"},
		{Int8, "1__0", invalid, "22P02"},
		{Int8, "_1", invalid, "22P02"},
		{Int8, "1_", invalid, "22P02"},
		{Int8, "0x", invalid, "22P02"},
		{Int8, "9223372036854775808", invalid, "22003"},
		{Int8, "-9223372036854775809", invalid, "22003"},
		{Int8, "99999999999999999999999", invalid, "22003"},
		{Int4, "2147483648", invalid, "22003"},
		{Int2, "-32769", invalid, "22003"},
		{UUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1", invalid, "22P02"},
		{UUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1g", invalid, "22P02"},
		{UUID, "a0e-ebc999c0b4ef8bb6d6bb9bd380a11", invalid, "22P02"},
		{UUID, "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", invalid, "22P02"},
		{UUID, " a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", invalid, "22P02"},
		{Bytea, `\x0`, invalid, "22023"},
		{Bytea, `\xzz`, invalid, "22023"},
		{Bytea, `a\b`, invalid, "22P02"},
		{Date, "2024-02-30", invalid, "22008"},
		{Date, "17/05/2024", unsupported, "0A000"},
		{Date, "tomorrow", unsupported, "0A000"},
		{Date, "2024-05-17 BC", unsupported, "0A000"},
		{Timestamp, "2024-05-17 10:11:12+02", unsupported, "0A000"},
		{Timestamp, "now", unsupported, "0A000"},
		{Timestamp, "2024-05-17 10:11:12.1234567", unsupported, "0A000"},
		{Timestamp, "2024-05-17 24:00:00", unsupported, "0A000"},
		{Timestamptz, "2024-05-17 10:11:12", unsupported, "0A000"},
		{Timestamptz, "2024-05-17", unsupported, "0A000"},
		{Timestamptz, "2024-05-17 10:11:12 Europe/Berlin", unsupported, "0A000"},
		{Numeric, "", invalid, "22P02"},
		{Numeric, ".", invalid, "22P02"},
		{Numeric, "1e", invalid, "22P02"},
		{Numeric, "1.2.3", invalid, "22P02"},
		{Numeric, "-NaN", invalid, "22P02"},
		{Numeric, "0x10", unsupported, "0A000"},
		{Numeric, "1_000", unsupported, "0A000"},
		{Numeric, "1e100000", unsupported, "0A000"},
		{Numeric, strings.Repeat("9", 2000), unsupported, "0A000"},
		{Bool, "o", invalid, "22P02"},
		{Bool, "maybe", invalid, "22P02"},
		{OID, "-1", unsupported, "0A000"},
		{OID, "4294967296", invalid, "22003"},
		{Char, "ab", unsupported, "0A000"},
		{0, "1", unsupported, "0A000"},
	} {
		_, err := Hash(c.typ, []byte(c.value), TextFormat)
		var ve *ValueError
		if !errors.Is(err, c.want) || !errors.As(err, &ve) || ve.Code != c.code {
			t.Errorf("%s %q: got %v, want %v with SQLSTATE %s", c.typ, c.value, err, c.want, c.code)
		}
	}
	for typ, size := range map[KeyType]int{Int2: 4, Int4: 8, Int8: 4, UUID: 15, Date: 8, Timestamp: 4, Numeric: 7, Bool: 0} {
		if _, err := Hash(typ, make([]byte, size), BinaryFormat); !errors.Is(err, ErrValue) {
			t.Errorf("%s: %d bytes of binary are accepted: %v", typ, size, err)
		}
	}
	if _, err := Hash(Int8, []byte("1"), 7); err == nil {
		t.Error("format 7 is accepted")
	}
}

func TestIntegersThatAreEqualHashAlike(t *testing.T) {
	for _, v := range []string{"0", "1", "-1", "32767", "-32768", " 42\n", "0x2a", "1_000"} {
		a, err1 := Hash(Int2, []byte(v), TextFormat)
		b, err2 := Hash(Int4, []byte(v), TextFormat)
		c, err3 := Hash(Int8, []byte(v), TextFormat)
		if err := errors.Join(err1, err2, err3); err != nil || a != b || b != c {
			t.Errorf("%q: %d, %d, %d, %v", v, a, b, c, err)
		}
	}
}

func TestHashAllocatesNothing(t *testing.T) {
	for _, c := range []struct {
		typ   KeyType
		value string
	}{{Int8, "1234567"}, {UUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}, {Text, "customer-0001"}, {Numeric, "12345.678"}, {Timestamp, "2024-05-17 10:11:12.5"}} {
		value := []byte(c.value)
		if n := testing.AllocsPerRun(100, func() {
			if _, err := Hash(c.typ, value, TextFormat); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", c.typ, n)
		}
	}
}

func FuzzHash(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(uint8(v.typ), v.text, false)
		f.Add(uint8(v.typ), v.bin, true)
	}
	f.Fuzz(func(t *testing.T, typ uint8, value []byte, binary bool) {
		format := TextFormat
		if binary {
			format = BinaryFormat
		}
		h, err := Hash(KeyType(typ), value, format)
		h2, err2 := Hash(KeyType(typ), append([]byte(nil), value...), format)
		if h != h2 || (err == nil) != (err2 == nil) {
			t.Fatal("not a function")
		}
	})
}

func BenchmarkHash(b *testing.B) {
	b.Run("int8", func(b *testing.B) {
		v := []byte("1234567")
		for b.Loop() {
			_, _ = Hash(Int8, v, TextFormat)
		}
	})
	b.Run("uuid", func(b *testing.B) {
		v := []byte("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")
		for b.Loop() {
			_, _ = Hash(UUID, v, TextFormat)
		}
	})
}
