package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// typesTable has the common types; each value's text form must come back from the read models as PostgreSQL prints it.
const typesTable = `CREATE TABLE things (
	id bigint PRIMARY KEY, small smallint, n numeric, money2 numeric(12,2), f4 real, f8 double precision, ok boolean,
	at timestamptz, local timestamp, day date, clock time, span interval, words text, fixed char(5), short varchar(40),
	ids int[], grid int[][], texts text[], times timestamptz[], nums numeric[], doc jsonb, raw json, uid uuid, bytes bytea, feeling mood, feelings mood[],
	ints int4range, stamps tstzrange, ip inet, bits bit varying)`

// typesRows are INSERTs' values behind the id: ordinary ones, extremes, NULLs, what needs quoting, what is TOASTed.
func typesRows() []string {
	const ordinary = `1, 12.50, 12.50, 1.5, 2.5, true, '2024-02-29 12:34:56.789012+02', '2024-02-29 12:34:56.5', '2024-02-29', '04:05:06.7', '1 year 2 mons -3 days 04:05:06',
		'red shoes', 'ab', 'short', '{1,NULL,3}', '{{1,2},{3,4}}', '{a,"b c",NULL}', '{"2024-01-01 00:00:00+00",infinity}', '{1.50,NaN}', '{"b": [1, 1.0], "a": null}', '{"b":1,"a":2}',
		'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '\x00ff10', 'fine', '{fine,bad}', '[1,5)', '[2024-01-01 00:00:00+00,infinity)', '10.0.0.1/8', B'10110'`
	const low = `-32768, '-Infinity', -9999999999.99, '-Infinity', '-1.7976931348623157e308', false, '-infinity', '-infinity', '-infinity', '00:00', '-178000000 years',
		'', '', '', '{}', '{}', '{}', '{}', '{}', '{}', '[]', '00000000-0000-0000-0000-000000000000', '', 'bad', '{}', 'empty', 'empty', '::', B''`
	const high = `32767, 99999999999999999999999999999999999999.123456789012345678901234567890, 9999999999.99, 3.4028235e38, 'NaN', NULL, 'infinity', '294276-12-31 23:59:59.999999', '5874897-12-31',
		'24:00:00', '178000000 years', E'tab\t quote" backslash\\ newline\n \u00e9\U0001F600 \u200f', 'x', 'o''brien', '[0:1]={7,8}', '{{-2147483648}}', '{"",NULL,"NULL","a,b","{}"}', '{-infinity}', '{0.000000000000000000001}',
		'{"deep": {"n": 123456789012345678901234567890.10, "s": "\u00e9\ud83d\ude00"}}', '"text"', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '\xdeadbeef', 'so so', '{"so so"}', '(,)', '(,)', '2001:db8::1', B'1'`
	const ancient = `NULL, 'NaN', 0.00, '-0', 1e-300, NULL, '0044-03-15 12:00:00+00 BC', '0001-01-01 00:00:00 BC', '4713-01-01 BC', NULL, '0', 'NULL', NULL, '\N', NULL, NULL, NULL, NULL, NULL,
		'0', '[1, {"k":"v"}]', NULL, NULL, NULL, NULL, '[-2147483648,2147483647)', NULL, '192.168.0.0/16', NULL`
	// Incompressible text, so that it is stored out of line.
	const toasted = `1, 1, 1, 1, 1, true, 'epoch', 'epoch', 'epoch', '01:02', '1 s', (SELECT string_agg(md5(i::text), '' ORDER BY i) FROM generate_series(1, 3000) i), 'long', 'x',
		(SELECT array_agg(i) FROM generate_series(1, 2000) i), '{{1}}', '{x}', '{epoch}', '{1}', (SELECT jsonb_object_agg('k' || i, md5(i::text)) FROM generate_series(1, 500) i), '{}', NULL,
		decode((SELECT string_agg(md5(i::text), '') FROM generate_series(1, 500) i), 'hex'), 'fine', '{fine}', '[1,2)', NULL, NULL, NULL`
	nulls := strings.TrimSuffix(strings.Repeat("NULL, ", 29), ", ")
	return []string{ordinary, low, high, ancient, toasted, nulls}
}

func TestEveryTypeComesBackAsPostgreSQLPrintsIt(t *testing.T) {
	rows := typesRows()
	sql := []string{`CREATE TYPE mood AS ENUM ('bad', 'so so', 'fine')`, typesTable}
	// The first of each is there before capture begins and comes with the snapshot, the second by the stream.
	for i, r := range rows {
		sql = append(sql, fmt.Sprintf("INSERT INTO things SELECT %d, %s", i, r))
	}
	s := start(t, spec{
		tables: "{things: {key: id}}",
		views: `  thing_search: {from: things, elastic: {index: INDEX_things}}
  thing_hash: {from: things, redis: {as: hash, prefix: "PREFIX"}}
  thing_json: {from: things, redis: {as: json, prefix: "PREFIX"}}
`,
		projectors: 1, sql: sql,
	})
	conn := s.connect()
	must(t, conn, waits)
	for i, r := range rows {
		must(t, conn, fmt.Sprintf("INSERT INTO things SELECT %d, %s", 100+i, r))
		// Another column changes, and what is stored out of line must not get lost.
		must(t, conn, fmt.Sprintf("INSERT INTO things SELECT %d, %s", 200+i, r))
		must(t, conn, "UPDATE things SET small = 5 WHERE id = $1", 200+i)
	}
	for id := range 16 { // on every shard
		must(t, conn, "INSERT INTO things (id) VALUES ($1)", 1000+id)
	}
	s.compareViews(conn, "*", map[string]string{"thing_search": "things", "thing_hash": "things", "thing_json": "things"})

	// By key and by the extended protocol, in binary, as the table's own columns are.
	for i := range rows {
		for _, view := range []string{"thing_search", "thing_hash", "thing_json"} {
			var want, got []any
			for from, into := range map[string]*[]any{"things": &want, view: &got} {
				q, err := conn.Query(within(t, patience), "SELECT id, small, n, f8, ok, at, day, words, ids, doc, uid, bytes FROM "+from+" WHERE id = $1", int64(200+i))
				if err != nil {
					t.Fatal(err)
				}
				for q.Next() {
					v, err := q.Values()
					if err != nil {
						t.Fatalf("%s: %v", from, err)
					}
					*into = append(*into, v...)
				}
				if err := q.Err(); err != nil {
					t.Fatalf("%s: %v", from, err)
				}
			}
			if w, g := fmt.Sprintf("%v", want), fmt.Sprintf("%v", got); len(want) == 0 || w != g {
				t.Errorf("%s by key %d, binary:\n got %s\nwant %s", view, 200+i, clip(g), clip(w))
			}
		}
	}
}

func clip(s string) string { return s[:min(len(s), 600)] }
