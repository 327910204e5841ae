package proxy

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// batchOf is what a driver sends that prepares nothing, as pgx's PgConn.ExecParams does.
func batchOf(sql string, oids []uint32, describe bool) []byte {
	var b []byte
	for _, m := range []pgproto3.FrontendMessage{
		&pgproto3.Parse{Query: sql, ParameterOIDs: oids}, &pgproto3.Bind{Parameters: [][]byte{[]byte("5"), nil}, ResultFormatCodes: []int16{1}},
	} {
		b, _ = m.Encode(b)
	}
	if describe {
		b, _ = (&pgproto3.Describe{ObjectType: 'P'}).Encode(b)
	}
	b, _ = (&pgproto3.Execute{}).Encode(b)
	b, _ = (&pgproto3.Sync{}).Encode(b)
	return b
}

// The fast path takes a driver's batch, and no byte more or less of it.
func TestPlainBatch(t *testing.T) {
	const sql = "SELECT $1, $2"
	for _, describe := range []bool{true, false} {
		for _, oids := range [][]uint32{nil, {23, 25}} {
			st := &statement{sql: []byte(sql), oids: oids}
			whole := batchOf(sql, oids, describe)
			next := sameParse(whole, st)
			if next == 0 || whole[next] != wire.MsgBind {
				t.Fatalf("the Parse of %v ends at %d", oids, next)
			}
			if described, ok := plainBatch(whole[next:]); !ok || described != describe {
				t.Errorf("described %v: %v, %v", describe, described, ok)
			}
			for n := range len(whole) {
				if next := sameParse(whole[:n], st); next > 0 {
					if _, ok := plainBatch(whole[next:n]); ok {
						t.Errorf("taken for whole: the first %d of %d bytes", n, len(whole))
					}
				}
			}
			if _, ok := plainBatch(append(slices.Clone(whole[next:]), 'Q')); ok {
				t.Error("taken with another message behind it")
			}
			for i := 1; i < len(whole); i++ { // the first is looked at before; what a byte more or less in the Bind's values means is for the server to say
				other := slices.Clone(whole)
				other[i]++
				next := sameParse(other, st)
				if next == 0 {
					continue
				}
				_, ok := plainBatch(other[next:])
				size := int(whole[next+4]) + 1
				if inBind := i >= next+wire.HeaderLen+2 && i < next+size; ok && !inBind {
					t.Errorf("taken with another byte at %d", i)
				}
			}
		}
	}
	for name, st := range map[string]*statement{"text": {sql: []byte("SELECT $1, $3")}, "longer": {sql: []byte(sql + " ")}, "types": {sql: []byte(sql), oids: []uint32{23}}} {
		if sameParse(batchOf(sql, nil, true), st) > 0 {
			t.Errorf("the same for another %s", name)
		}
	}
	named, _ := (&pgproto3.Parse{Name: "s", Query: sql}).Encode(nil)
	if sameParse(append(named, batchOf(sql, nil, true)...), &statement{sql: []byte(sql)}) > 0 {
		t.Error("the same under a name")
	}
}
