package engine

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidemarkdb/tidemark/internal/localstack"
)

// What a real server sends in binary format is what EncodeColumn makes of what it sends as text.
func TestEncodeColumnAsTheServerDoes(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // the first time PostgreSQL is downloaded
	defer cancel()
	stack, err := localstack.Start(ctx, localstack.Spec{Shards: []localstack.PostgresSpec{{Name: "s1"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stack.Stop(); err != nil {
			t.Error(err)
		}
	})
	conn, err := pgconn.Connect(ctx, stack.Postgres[0].Primary.DSN("postgres")+"&timezone=UTC")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	for _, tc := range []struct {
		typ    string
		values []string
	}{
		{"bool", []string{"t", "f"}},
		{"int2", []string{"-32768", "32767"}},
		{"int4", []string{"-2147483648", "7"}},
		{"int8", []string{"-9223372036854775808", "9223372036854775807"}},
		{"oid", []string{"4294967295"}},
		{"float4", []string{"0.1", "-3.4e38", "NaN", "Infinity", "-Infinity", "-0", "1e-45"}},
		{"float8", []string{"0.1", "1e308", "NaN", "Infinity", "-Infinity", "-0", "5e-324"}},
		{"numeric", []string{"0", "0.00", "1", "-1.50", "10000", "100000000.00001", "0.0001", "0.00001", "-0.00012345", "9999.9999", "12345678901234567890.12345678901234567890", "NaN", "Infinity", "-Infinity", "1e1000", "1e-1000", "-1e131071"}},
		{"text", []string{"", "a\nb", "日本 😀"}},
		{"varchar", []string{"x"}},
		{"char(5)", []string{"ab"}},
		{"name", []string{"pg_class"}},
		{`"char"`, []string{"x"}},
		{"bytea", []string{`\x`, `\x00ff10`}},
		{"uuid", []string{"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}},
		{"date", []string{"2000-01-01", "1999-12-31", "2024-02-29", "0044-03-15 BC", "4713-01-01 BC", "5874897-12-31", "infinity", "-infinity"}},
		{"time", []string{"00:00:00", "23:59:59.999999", "24:00:00"}},
		{"timestamp", []string{"2000-01-01", "1999-12-31 23:59:59.999999", "2024-02-29 12:00:00.000001", "4713-01-01 BC", "294276-12-31 23:59:59.999999", "infinity", "-infinity"}},
		{"timestamptz", []string{"2024-02-29 12:00:00.5+05:30", "0044-03-15 12:00:00 BC", "infinity", "-infinity"}},
		{"interval", []string{"1 year 2 mons 3 days 04:05:06.789", "-00:00:01", "1 day -00:00:01"}},
		{"jsonb", []string{`{"b": [1, 2.50], "a": "é"}`, "null"}},
		{"json", []string{`{"b":1,  "a" : 2}`}},
		{"inet", []string{"10.0.0.1", "10.0.0.0/8", "::1"}},
		{"cidr", []string{"10.0.0.0/8"}},
		{"macaddr", []string{"08:00:2b:01:02:03"}},
		{"point", []string{"(1,2.5)"}},
		{"box", []string{"(3,4),(1,2)"}},
		{"varbit", []string{"0101", "111100001"}},
		{"bit(3)", []string{"101"}},
		{"int4range", []string{"[1,10)", "empty", "(,5)", "(,)"}},
		{"numrange", []string{"[1.5,2.50]"}},
		{"tstzrange", []string{`["2024-01-01 00:00:00+00",infinity)`}},
		{"daterange", []string{"[2024-01-01,2024-02-01)"}},
		{"int8multirange", []string{"{[1,3),[5,7)}", "{}"}},
		{"int4[]", []string{"{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[5:6]={1,2}", "[0:1][-2:-1]={{1,2},{3,4}}"}},
		{"text[]", []string{`{a,"b c",NULL,"NULL","","\"\\",",","{}"}`, `{{a},{b}}`}},
		{"numeric[]", []string{"{1.50,NaN,123456789012345678901234567890}"}},
		{"timestamptz[]", []string{`{"2024-02-29 23:59:59.999999+00",infinity,NULL}`}},
		{"bytea[]", []string{`{"\\x00ff"}`}},
		{"jsonb[]", []string{`{"{\"a\": 1}"}`}},
		{"box[]", []string{"{(3,4),(1,2);(1,1),(0,0)}"}},
		{"uuid[]", []string{"{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"}},
		{"tsvector", []string{"'fat':2 'rat':3A,4"}},
		{"xml", []string{"<a>b</a>"}},
	} {
		for _, v := range tc.values {
			res := conn.ExecParams(ctx, "SELECT $1::text::"+tc.typ+", $1::text::"+tc.typ, [][]byte{[]byte(v)}, nil, nil, []int16{0, 1}).Read()
			if res.Err != nil {
				t.Errorf("%s %q: %v", tc.typ, v, res.Err)
				continue
			}
			oid, text, want := res.FieldDescriptions[0].DataTypeOID, res.Rows[0][0], res.Rows[0][1]
			prefix := []byte("kept")
			got, err := EncodeColumn(oid, 1, text, prefix)
			if err != nil {
				t.Errorf("%s %q: %v", tc.typ, v, err)
				continue
			}
			if !bytes.Equal(got, append(prefix, want...)) {
				t.Errorf("%s %q:\n got %x\nwant %x", tc.typ, text, got[len(prefix):], want)
			}
		}
	}
}

func TestEncodeColumnRefuses(t *testing.T) {
	for _, tc := range []struct {
		oid      uint32
		format   int16
		text     string
		noBinary bool
	}{
		{99999, 1, "happy", true},
		{pgtype.ACLItemOID, 1, "=r/postgres", true},
		{790, 1, "$1.00", true}, // money
		{pgtype.Int4OID, 1, "2147483648", false},
		{pgtype.Int4OID, 1, "x", false},
		{pgtype.BoolOID, 1, "true", false},
		{pgtype.NumericOID, 1, "1e5", false},
		{pgtype.NumericOID, 1, "", false},
		{pgtype.UUIDOID, 1, "a0", false},
		{pgtype.ByteaOID, 1, "abc", false},
		{pgtype.DateOID, 1, "soon", false},
		{pgtype.Int4ArrayOID, 1, "{1,2", false},
		{pgtype.Int4ArrayOID, 1, "{1}x", false},
		{pgtype.Int4ArrayOID, 1, "{{1,2},{3}}", false},
		{pgtype.Int4ArrayOID, 1, "{{1},2}", false},
		{pgtype.Int4ArrayOID, 1, "{{{{{{{1}}}}}}}", false},
		{pgtype.Int4OID, 2, "1", false},
	} {
		dst, err := EncodeColumn(tc.oid, tc.format, []byte(tc.text), []byte("kept"))
		if err == nil || string(dst) != "kept" || errors.Is(err, ErrNoBinary) != tc.noBinary {
			t.Errorf("oid %d, format %d, %q: got %q, %v", tc.oid, tc.format, tc.text, dst, err)
		}
	}
	if got, err := EncodeColumn(99999, 0, []byte("happy"), nil); err != nil || string(got) != "happy" {
		t.Errorf("text of an unknown type: got %q, %v", got, err)
	}
}

func BenchmarkEncodeColumn(b *testing.B) {
	for _, bc := range []struct {
		name string
		oid  uint32
		text string
	}{
		{"int8", pgtype.Int8OID, "1234567890"},
		{"text", pgtype.TextOID, "hello"},
		{"numeric", pgtype.NumericOID, "12345.67"},
		{"timestamptz", pgtype.TimestamptzOID, "2024-02-29 12:00:00.5+00"},
		{"text[]", pgtype.TextArrayOID, "{a,b,c}"},
		{"interval", pgtype.IntervalOID, "1 day"},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			text, dst := []byte(bc.text), make([]byte, 0, 256)
			for b.Loop() {
				if _, err := EncodeColumn(bc.oid, 1, text, dst[:0]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
