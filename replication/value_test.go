package replication

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

// valueCases are columns with values at their types' extremes, as SQL, and the JSON form of each.
var valueCases = []struct {
	typ    string
	values [][2]string // SQL literal (cast to typ), JSON
}{
	{"int2", [][2]string{{"-32768", "-32768"}, {"0", "0"}}},
	{"int4", [][2]string{{"2147483647", "2147483647"}}},
	{"int8", [][2]string{{"-9223372036854775808", "-9223372036854775808"}, {"9223372036854775807", "9223372036854775807"}}},
	{"numeric", [][2]string{
		{"123456789012345678901234567890.123456789", `"123456789012345678901234567890.123456789"`},
		{"1.500", `"1.500"`},
		{"NaN", `"NaN"`},
		{"Infinity", `"Infinity"`},
		{"-Infinity", `"-Infinity"`},
		{"-0.000001", `"-0.000001"`},
	}},
	{"numeric(10,2)", [][2]string{{"1.5", `"1.50"`}}},
	{"float4", [][2]string{{"1.1", "1.1"}, {"1e10", "1e+10"}, {"100000", "100000"}, {"1000000", "1e+06"}, {"3.4028235e38", "3.4028235e+38"}, {"1e-45", "1e-45"}, {"NaN", `"NaN"`}}},
	{"float8", [][2]string{
		{"0.1", "0.1"},
		{"-0", "-0"},
		{"1e15", "1e+15"},
		{"123456789012345", "123456789012345"},
		{"0.0001", "0.0001"},
		{"0.00001", "1e-05"},
		{"1.7976931348623157e308", "1.7976931348623157e+308"},
		{"5e-324", "5e-324"},
		{"Infinity", `"Infinity"`},
		{"-Infinity", `"-Infinity"`},
		{"NaN", `"NaN"`},
	}},
	{"bool", [][2]string{{"t", "true"}, {"f", "false"}}},
	{"text", [][2]string{{"", `""`}, {`a"b\c/` + "\t\n\x01\x7fé☃𝄞", `"a\"b\\c/\t\n\u0001` + "\x7fé☃𝄞\""}, {"NULL", `"NULL"`}, {`\N`, `"\\N"`}}},
	{"varchar(5)", [][2]string{{"abc", `"abc"`}}},
	{"char(5)", [][2]string{{"abc", `"abc  "`}}},
	{"name", [][2]string{{"abc", `"abc"`}}},
	{`"char"`, [][2]string{{"x", `"x"`}}},
	{"bytea", [][2]string{{`\x`, `""`}, {`\x00ff10`, `"AP8Q"`}}},
	{"uuid", [][2]string{{"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`}}},
	{"date", [][2]string{
		{"2024-02-29", `"2024-02-29"`},
		{"infinity", `"infinity"`},
		{"-infinity", `"-infinity"`},
		{"0044-03-15 BC", `"-0043-03-15"`},
		{"0001-01-01 BC", `"0000-01-01"`},
		{"4713-01-01 BC", `"-4712-01-01"`},
		{"0001-01-01", `"0001-01-01"`},
		{"5874897-12-31", `"+5874897-12-31"`},
	}},
	{"time", [][2]string{{"24:00:00", `"24:00:00"`}, {"00:00:00.000001", `"00:00:00.000001"`}}},
	{"timetz", [][2]string{{"04:05:06.789+05:30", `"04:05:06.789+05:30"`}, {"00:00:00-12", `"00:00:00-12"`}}},
	{"timestamp", [][2]string{
		{"2024-02-29 12:34:56.78", `"2024-02-29T12:34:56.78"`},
		{"infinity", `"infinity"`},
		{"4713-11-24 00:00:00 BC", `"-4712-11-24T00:00:00"`},
		{"294276-12-31 23:59:59.999999", `"+294276-12-31T23:59:59.999999"`},
	}},
	{"timestamptz", [][2]string{
		{"2024-02-29 12:34:56.789012+02", `"2024-02-29T10:34:56.789012Z"`},
		{"-infinity", `"-infinity"`},
		{"0044-03-15 12:00:00+00 BC", `"-0043-03-15T12:00:00Z"`},
		{"10000-01-01 00:00:00+00", `"+10000-01-01T00:00:00Z"`},
	}},
	{"interval", [][2]string{{"1 year 2 mons -3 days 04:05:06.789", `"1 year 2 mons -3 days +04:05:06.789"`}, {"0", `"00:00:00"`}}},
	{"json", [][2]string{{`{"b" : 1.0, "a":[1e400,null], "a":"\u0000"}`, `{"b" : 1.0, "a":[1e400,null], "a":"\u0000"}`}}},
	{"jsonb", [][2]string{
		{`{"bb": 1.0, "a": [1, {"x": null}], "s": "q\"\\\n\u0001é<>&/"}`, `{"a": [1, {"x": null}], "s": "q\"\\\n\u0001é<>&/", "bb": 1.0}`},
		{`12345678901234567890.12345678901234567890`, `12345678901234567890.12345678901234567890`},
		{`"s"`, `"s"`},
		{`[]`, `[]`},
		{`{}`, `{}`},
	}},
	{"xml", [][2]string{{"<a>é</a>", `"<a>é</a>"`}}},
	{"inet", [][2]string{{"192.168.0.1/24", `"192.168.0.1/24"`}, {"::1", `"::1"`}}},
	{"macaddr", [][2]string{{"08:00:2b:01:02:03", `"08:00:2b:01:02:03"`}}},
	{"bit(5)", [][2]string{{"10101", `"10101"`}}},
	{"varbit", [][2]string{{"101", `"101"`}}},
	{"point", [][2]string{{"(1.5,-2)", `"(1.5,-2)"`}}},
	{"tsvector", [][2]string{{"'a':1 'b'", `"'a':1 'b'"`}}},
	{"oid", [][2]string{{"4294967295", `"4294967295"`}}},
	{"pg_lsn", [][2]string{{"16/B374D848", `"16/B374D848"`}}},
	{"int4range", [][2]string{{"[1,5)", `"[1,5)"`}, {"empty", `"empty"`}}},
	{"tstzrange", [][2]string{{"[2024-01-01 00:00:00+00,)", `"[\"2024-01-01 00:00:00+00\",)"`}}},
	{"nummultirange", [][2]string{{"{[1.5,2),[3,4)}", `"{[1.5,2),[3,4)}"`}}},
	{"int2vector", [][2]string{{"1 2 3", `"1 2 3"`}}},
	{"mood", [][2]string{{"so so", `"so so"`}}},
	{"price", [][2]string{{"1.5", `"1.50"`}}},
	{"tags", [][2]string{{"{a,b}", `["a","b"]`}}},
	{"pair", [][2]string{{`(1,"a b")`, `"(1,\"a b\")"`}}},

	{"int4[]", [][2]string{
		{"{}", "[]"},
		{"{1,NULL,-3}", "[1,null,-3]"},
		{"{{1,2},{3,NULL}}", "[[1,2],[3,null]]"},
		{"{{{{{{1}}}}}}", "[[[[[[1]]]]]]"},
		{"[0:1]={7,8}", `"[0:1]={7,8}"`},
		{"[1:1][-2:-1]={{1,2}}", `"[1:1][-2:-1]={{1,2}}"`},
	}},
	{"text[]", [][2]string{
		{`{a,"",NULL,"NULL","null","a b","a,b","{x}","q\"q","b\\b"}`, `["a","",null,"NULL","null","a b","a,b","{x}","q\"q","b\\b"]`},
		{"{\"tab\there\",\"new\nline\"}", `["tab\there","new\nline"]`},
	}},
	{"float8[]", [][2]string{{"{1.5,NaN,-Infinity,1e+20}", `[1.5,"NaN","-Infinity",1e+20]`}}},
	{"numeric[]", [][2]string{{"{1.50,NaN}", `["1.50","NaN"]`}}},
	{"bool[]", [][2]string{{"{t,f,NULL}", "[true,false,null]"}}},
	{"bytea[]", [][2]string{{`{"\\x00ff"}`, `["AP8="]`}}},
	{"date[]", [][2]string{{`{2024-01-01,"0044-03-15 BC",infinity}`, `["2024-01-01","-0043-03-15","infinity"]`}}},
	{"timestamptz[]", [][2]string{{`{"2024-01-01 00:00:00+00"}`, `["2024-01-01T00:00:00Z"]`}}},
	{"uuid[]", [][2]string{{"{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", `["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]`}}},
	{"jsonb[]", [][2]string{
		{`{"{\"a\": [1, 2]}",NULL,"[]","\"s\""}`, `[{"a": [1, 2]},null,[],"s"]`},
		{`{{1,2},{3,4}}`, `"{{1,2},{3,4}}"`},
	}},
	{"box[]", [][2]string{{"{(1,1),(0,0);(2,2),(0,0)}", `["(1,1),(0,0)","(2,2),(0,0)"]`}}},
	{"mood[]", [][2]string{{`{"so so",glad}`, `["so so","glad"]`}}},
	{"price[]", [][2]string{{"{1.50,NULL}", `["1.50",null]`}}},
	{"pair[]", [][2]string{{`{"(1,\"a b\")"}`, `["(1,\"a b\")"]`}}},
	{"int4range[]", [][2]string{{`{"[1,5)",empty}`, `["[1,5)","empty"]`}}},
}

// Every value of every type comes through the snapshot and through the stream as PostgreSQL prints it, has the documented JSON
// form, and turns back into the same text, also after a store has compacted the JSON.
func TestValues(t *testing.T) {
	onVersions(t, func(t *testing.T, db *database) {
		db.exec(`CREATE TYPE mood AS ENUM ('sad', 'so so', 'glad')`, `CREATE DOMAIN price AS numeric(10,2)`, `CREATE DOMAIN tags AS text[]`, `CREATE TYPE pair AS (n int, s text)`)
		var cols, tables []string
		most := 0
		for i, c := range valueCases {
			cols = append(cols, fmt.Sprintf("c%d %s", i, c.typ))
			most = max(most, len(c.values))
		}
		// The session's settings differ from ours on purpose: they must not matter.
		db.exec(`SET timezone = 'Asia/Tokyo'`, `SET datestyle = 'German'`, `SET bytea_output = 'escape'`, `SET extra_float_digits = 0`, `SET intervalstyle = 'iso_8601'`)
		for _, table := range []string{"before", "behind"} {
			db.exec(fmt.Sprintf(`CREATE TABLE %s (id int PRIMARY KEY, %s)`, table, strings.Join(cols, ", ")))
			tables = append(tables, table)
		}
		fill := func(table string) {
			for row := range most + 1 { // the last row is all NULLs
				names, vals := []string{"id"}, []string{fmt.Sprint(row)}
				for i, c := range valueCases {
					if row < len(c.values) {
						names = append(names, fmt.Sprintf("c%d", i))
						vals = append(vals, "E'"+strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(c.values[row][0])+"'")
					}
				}
				db.exec(fmt.Sprintf(`SET datestyle = 'ISO'; INSERT INTO %s (%s) VALUES (%s)`, table, strings.Join(names, ", "), strings.Join(vals, ", ")))
			}
		}
		fill("before")
		r := start(t, db.config(tables...)).streaming()
		fill("behind")
		r.reach(db.mark())

		plain, err := pgx.Connect(t.Context(), db.dsn+"&timezone=UTC")
		if err != nil {
			t.Fatal(err)
		}
		defer closeConn(plain)
		for _, table := range tables {
			changes := r.changes("public." + table)
			if len(changes) != most+1 {
				t.Fatalf("%s: %d rows, want %d", table, len(changes), most+1)
			}
			for row, ch := range changes {
				for i, c := range valueCases {
					col, v := ch.Relation.Columns[i+1], ch.New[i+1]
					name := fmt.Sprintf("%s %s row %d", table, c.typ, row)
					got, err := JSON(col, v)
					if err != nil {
						t.Errorf("%s: %v", name, err)
						continue
					}
					want := "null"
					if row < len(c.values) {
						want = c.values[row][1]
					}
					if string(got) != want {
						t.Errorf("%s: JSON is %s, want %s", name, got, want)
					}
					if !json.Valid(got) {
						t.Errorf("%s: %s is not JSON", name, got)
						continue
					}
					// What PostgreSQL itself prints for a plain client.
					res := plain.PgConn().ExecParams(t.Context(), fmt.Sprintf("SELECT c%d FROM %s WHERE id = %d", i, table, row), nil, nil, nil, nil).Read()
					if res.Err != nil {
						t.Fatal(res.Err)
					}
					printed := res.Rows[0][0]
					if diff := cmp.Diff(string(printed), string(v.Bytes)); diff != "" || (printed == nil) != v.Null() {
						t.Errorf("%s: PostgreSQL prints it otherwise (-printed +captured):\n%s", name, diff)
					}
					compact, err := json.Marshal(got) // as an encoder embeds it: without spaces, <>& escaped
					if err != nil {
						t.Fatal(err)
					}
					for _, form := range []json.RawMessage{got, compact} {
						if c.typ == "json" && string(form) != string(got) {
							continue // its spaces are part of a json value; compacting loses them
						}
						back, err := TextColumn(col, form)
						if err != nil || string(back) != string(printed) || (back == nil) != (printed == nil) {
							t.Errorf("%s: %s turns into %q, want %q (%v)", name, form, back, printed, err)
						}
						if c.typ != "tags" { // a domain is known by its column only
							if back, err := Text(col.TypeOID, form); err != nil || string(back) != string(printed) {
								t.Errorf("%s: by OID %s turns into %q, want %q (%v)", name, form, back, printed, err)
							}
						}
					}
				}
			}
		}
	})
}

func TestText(t *testing.T) {
	cases := []struct {
		oid  uint32
		json string
		want string
	}{
		{oidInt8, `42`, "42"},
		{oidInt8, `4.2e1`, "42"},
		{oidInt4, `"42"`, "42"},
		{oidFloat8, `1.0E20`, "1e+20"},
		{oidFloat8, `100`, "100"},
		{oidFloat4, `0.10000000149011612`, "0.1"},
		{oidNumeric, `1.50`, "1.50"},
		{oidBool, `"true"`, "t"},
		{oidDate, `"2024-01-02"`, "2024-01-02"},
		{oidDate, `"2024-01-02T00:00:00.000Z"`, "2024-01-02"},
		{oidTimestamp, `"2024-01-02T03:04:05.100"`, "2024-01-02 03:04:05.1"},
		{oidTimestamp, `"2024-01-02 03:04:05.000"`, "2024-01-02 03:04:05"},
		{oidTimestamp, `"2024-01-02T03:40"`, "2024-01-02 03:40:00"},
		{oidTimestamptz, `"2024-01-02T03:04:05.120Z"`, "2024-01-02 03:04:05.12+00"},
		{oidTimestamptz, `"2024-01-02T03:04:05+02:00"`, "2024-01-02 01:04:05+00"},
		{oidTimestamptz, `"2024-01-02"`, "2024-01-02 00:00:00+00"},
		{oidJSONB, `{"a":1,"b":[1,"x y:,"]}`, `{"a": 1, "b": [1, "x y:,"]}`},
		{25, `"a\u003cb"`, "a<b"},
		{25, `12`, "12"},
		{1007, `[[1,2],[3,4]]`, "{{1,2},{3,4}}"},
		{99999, `["a b",null]`, `{"a b",NULL}`},
	}
	for _, c := range cases {
		got, err := Text(c.oid, json.RawMessage(c.json))
		if err != nil || string(got) != c.want {
			t.Errorf("Text(%d, %s) = %q, %v; want %q", c.oid, c.json, got, err, c.want)
		}
	}
	for _, c := range []struct {
		oid  uint32
		json string
	}{
		{oidInt4, `1.5`},
		{oidInt4, `"x"`},
		{oidBool, `1`},
		{oidFloat8, `"x"`},
		{oidBytea, `"*"`},
		{oidDate, `"x"`},
		{oidTimestamp, `17`},
		{oidTimestamptz, `"2024-01-02Tx"`},
		{oidTimestamptz, `"2024-01-02 00000000000000"`},
		{oidTimestamp, `"2024-01-02T03:04:0500"`},
		{oidTimestamp, `"2024-01-02T03:04:05."`},
		{oidTimestamp, `"2024-01-02T03:04:05.1.2"`},
		{25, `{"a":1}`},
		{oidJSONB, `{"a"`},
		{1007, `{"a":1}`},
	} {
		if got, err := Text(c.oid, json.RawMessage(c.json)); err == nil {
			t.Errorf("Text(%d, %s) = %q, want an error", c.oid, c.json, got)
		}
	}
}

func TestJSONRefuses(t *testing.T) {
	for _, c := range []struct {
		oid  uint32
		text string
	}{
		{oidBool, "x"},
		{oidInt4, "1x"},
		{oidInt4, ""},
		{oidFloat8, "nan"},
		{oidBytea, "abc"},
		{oidBytea, `\xabc`},
		{oidDate, "01.02.2024"},
		{oidTimestamptz, "2024-01-01 00:00:00+02"},
		{oidTimestamp, "2024-01-01"},
		{25, "\xff"},
		{oidJSONB, ""},
		{1007, "{1"},
		{1007, "{1,}"},
		{1007, "{1}x"},
		{1007, "{{{{{{{1}}}}}}}"},
		{1009, `{"a}`},
	} {
		if got, err := JSON(Column{TypeOID: c.oid}, Value{Bytes: []byte(c.text)}); err == nil {
			t.Errorf("JSON(%d, %q) = %s, want an error", c.oid, c.text, got)
		}
	}
	if _, err := JSON(Column{TypeOID: 25}, Value{Unchanged: true}); !errors.Is(err, ErrUnchanged) {
		t.Errorf("an unchanged value gives %v, want ErrUnchanged", err)
	}
}

// Floats print as PostgreSQL prints them, over the whole range.
func TestFloatText(t *testing.T) {
	db := newDatabase(t, "18")
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, bits := range []int{32, 64} {
		var in []string
		for i := range 4000 {
			var f float64
			switch {
			case bits == 32:
				f = float64(math.Float32frombits(rnd.Uint32()))
			case i%2 == 0:
				f = math.Float64frombits(rnd.Uint64())
			default:
				f = math.Round(rnd.Float64()*1e6) / math.Pow10(rnd.IntN(12))
			}
			if math.IsNaN(f) || math.IsInf(f, 0) {
				continue
			}
			b, err := json.Marshal(f)
			if err != nil {
				t.Fatal(err)
			}
			in = append(in, string(b))
		}
		var want []string
		err := db.conn.QueryRow(t.Context(), fmt.Sprintf(`SELECT array_agg(x::float%d::text ORDER BY n) FROM unnest($1::text[]) WITH ORDINALITY u(x, n)`, bits/8), in).Scan(&want)
		if err != nil {
			t.Fatal(err)
		}
		for i := range in {
			got, err := appendFloatText(nil, json.RawMessage(want[i]), bits)
			if err != nil || string(got) != want[i] {
				t.Errorf("float%d %s turns into %s (%v)", bits/8, want[i], got, err)
			}
			// Another notation of the same number is laid out as PostgreSQL would, if not always with its choice of digits.
			got, err = appendFloatText(nil, json.RawMessage(in[i]), bits)
			if err != nil {
				t.Fatal(err)
			}
			a, errA := strconv.ParseFloat(string(got), bits)
			b, errB := strconv.ParseFloat(want[i], bits)
			if errA != nil || errB != nil || a != b || strings.Contains(string(got), "e") != strings.Contains(want[i], "e") {
				t.Errorf("float%d of %s is %s, PostgreSQL says %s", bits/8, in[i], got, want[i])
			}
		}
	}
}

// The table of built-in arrays is the catalog's, on both ends of the range of versions.
func TestArrayTypes(t *testing.T) {
	onVersions(t, func(t *testing.T, db *database) {
		rows, err := db.conn.Query(t.Context(), `SELECT a.oid, e.oid, e.typdelim::text FROM pg_type e JOIN pg_type a ON a.oid = e.typarray
			WHERE a.oid < $1 AND e.typtype IN ('b', 'r', 'm')`, firstNormalOID)
		if err != nil {
			t.Fatal(err)
		}
		var oid, elem uint32
		var delim string
		if _, err := pgx.ForEachRow(rows, []any{&oid, &elem, &delim}, func() error {
			if s := (Column{TypeOID: oid}).shape(); s.elem != elem || s.delim != delim[0] {
				t.Errorf("array type %d has element %d separated by %q, want %d, %q", oid, s.elem, s.delim, elem, delim)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkAppendJSON(b *testing.B) {
	cols := []Column{{TypeOID: oidInt8}, {TypeOID: 25}, {TypeOID: oidNumeric}, {TypeOID: oidTimestamptz}, {TypeOID: oidBool}}
	vals := []Value{{Bytes: []byte("123456")}, {Bytes: []byte("some text of usual length")}, {Bytes: []byte("12.50")}, {Bytes: []byte("2024-02-29 10:34:56.789012+00")}, {Bytes: []byte("t")}}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = buf[:0]
		for i := range cols {
			var err error
			if buf, err = AppendJSON(buf, cols[i], vals[i]); err != nil {
				b.Fatal(err)
			}
		}
	}
}
