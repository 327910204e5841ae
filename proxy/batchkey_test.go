package proxy_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidemarkdb/tidemark/sharding"
)

// A driver that prepares nothing sends the same batch with other values: each goes to its key's shard, and what is wrong with a value is
// said as PostgreSQL says it.
func TestSameBatchByKey(t *testing.T) {
	f := newFixture(t, fixtureSpec{shards: 2, tables: []sharding.Table{{Name: "kept", Kind: sharding.Sharded, Column: "id", Type: sharding.Int8}}})
	engines(t, func(t *testing.T, engineName string) {
		p := f.run(t, engineName)
		c := connect(t, p.dsn).PgConn()
		run := func(sql string, oids []uint32, formats []int16, values ...[]byte) (string, error) {
			r := c.ExecParams(t.Context(), sql, values, oids, formats, nil).Read()
			if r.Err != nil || len(r.Rows) == 0 {
				return "", r.Err
			}
			return string(r.Rows[0][0]), nil
		}
		for _, sql := range []string{"drop table if exists kept", "create table kept (id bigint primary key, v text)"} {
			if _, err := c.Exec(t.Context(), sql).ReadAll(); err != nil {
				t.Fatal(err)
			}
		}
		const byKey = "select v from kept where id = $1"
		for i := range 20 {
			if _, err := run("insert into kept values ($1, $2)", nil, nil, fmt.Append(nil, i), fmt.Append(nil, "v", i)); err != nil {
				t.Fatal(err)
			}
		}
		right := func() {
			t.Helper()
			for i := range 20 {
				if got, err := run(byKey, nil, nil, fmt.Append(nil, i)); err != nil || got != fmt.Sprint("v", i) {
					t.Errorf("key %d: %q, %v", i, got, err)
				}
			}
		}
		right()
		for i := range 20 {
			if got, err := run(byKey, []uint32{20}, []int16{1}, []byte{0, 0, 0, 0, 0, 0, 0, byte(i)}); err != nil || got != fmt.Sprint("v", i) {
				t.Errorf("binary key %d: %q, %v", i, got, err)
			}
		}
		for _, tt := range []struct {
			name    string
			formats []int16
			values  [][]byte
			code    string
		}{
			{"NULL", nil, [][]byte{nil}, ""},
			{"not a number", nil, [][]byte{[]byte("x")}, "22P02"},
			{"too large", nil, [][]byte{[]byte("99999999999999999999")}, "22003"},
			{"none", nil, nil, "08P01"},
			{"two", nil, [][]byte{[]byte("1"), []byte("2")}, "08P01"},
			{"formats", []int16{0, 0}, [][]byte{[]byte("1")}, "08P01"},
			{"half a number", []int16{1}, [][]byte{{0, 0, 1}}, "22P03"},
		} {
			for range 2 {
				got, err := run(byKey, nil, tt.formats, tt.values...)
				var e *pgconn.PgError
				if code := ""; errors.As(err, &e) && e.Code == tt.code || code == tt.code && err == nil && got == "" {
					right()
					continue
				}
				t.Errorf("%s: %q, %v, not %q", tt.name, got, err, tt.code)
			}
		}
	})
}
