package proxy

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidemarkdb/tidemark/internal/wire"
)

// batchOf is what drivers send: of a statement that they have prepared under a name, or parse without one, as pgx's PgConn.ExecParams does.
func batchOf(name, sql string, oids []uint32, describe bool) []byte {
	var b []byte
	if name == "" {
		b, _ = (&pgproto3.Parse{Query: sql, ParameterOIDs: oids}).Encode(b)
	}
	b, _ = (&pgproto3.Bind{PreparedStatement: name, Parameters: [][]byte{[]byte("5"), nil}, ResultFormatCodes: []int16{1}}).Encode(b)
	if describe {
		b, _ = (&pgproto3.Describe{ObjectType: 'P'}).Encode(b)
	}
	b, _ = (&pgproto3.Execute{}).Encode(b)
	b, _ = (&pgproto3.Sync{}).Encode(b)
	return b
}

// The fast path takes a driver's batch, and no byte more or less of it.
func TestLoneBatch(t *testing.T) {
	const sql = "SELECT $1, $2"
	for _, name := range []string{"", "s"} {
		for _, describe := range []bool{true, false} {
			for _, oids := range [][]uint32{nil, {23, 25}} {
				whole := batchOf(name, sql, oids, describe)
				x, ok := readLoneBatch(whole)
				if !ok || x.describes != describe || x.parses != (name == "") || string(x.bind.Statement) != name || x.bind.NumParams() != 2 {
					t.Fatalf("statement %q, described %v, types %v: read as %+v, %v", name, describe, oids, x, ok)
				}
				if x.parses && (string(x.parse.SQL) != sql || !x.parse.HasOIDs(oids)) {
					t.Errorf("parsed %q with types %d", x.parse.SQL, x.parse.AppendOIDs(nil))
				}
				for n := range len(whole) {
					if _, ok := readLoneBatch(whole[:n]); ok {
						t.Errorf("taken for whole: the first %d of %d bytes", n, len(whole))
					}
				}
				if _, ok := readLoneBatch(append(slices.Clone(whole), 'Q')); ok {
					t.Error("taken with another message behind it")
				}
				bind := len(whole) - len(batchOf("s", sql, nil, describe)) // where it begins
				if name == "" {
					bind += len("s")
				}
				head := bind + wire.HeaderLen + len(name) + 2
				for i := 1; i < len(whole); i++ { // the first is looked at before; what is in the text, the types and the values is for others to say
					other := slices.Clone(whole)
					other[i]++
					inText := i >= wire.HeaderLen+1 && i < bind-2-4*len(oids)-1 || i < bind && i >= bind-4*len(oids)
					inName := i >= bind+wire.HeaderLen+1 && i < head-1 && name != ""
					inValues := i >= head && i < bind+int(whole[bind+4])+1
					inLimit := i >= len(whole)-9 && i < len(whole)-5
					if _, ok := readLoneBatch(other); ok && !inText && !inName && !inValues && !inLimit {
						t.Errorf("statement %q, described %v, types %v: taken with another byte at %d of %q", name, describe, oids, i, whole)
					}
				}
			}
		}
	}
	named, _ := (&pgproto3.Parse{Name: "s", Query: sql}).Encode(nil)
	if _, ok := readLoneBatch(append(named, batchOf("s", sql, nil, true)...)); ok {
		t.Error("taken with a Parse under a name")
	}
	portal, _ := (&pgproto3.Bind{DestinationPortal: "p", PreparedStatement: "s"}).Encode(nil)
	portal, _ = (&pgproto3.Execute{}).Encode(portal)
	if portal, _ = (&pgproto3.Sync{}).Encode(portal); portal == nil {
		t.Fatal("no messages")
	}
	if _, ok := readLoneBatch(portal); ok {
		t.Error("taken with a portal that has a name")
	}
}
