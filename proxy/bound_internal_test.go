package proxy

import (
	"encoding/binary"
	"testing"

	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/router"
	"github.com/tidemarkdb/tidemark/sharding"
)

// What drivers send that prepare nothing, a batch of a SELECT by the shard key, is for the fast path: its Bind says to which shard it goes,
// whether the key comes as text or in binary, without and with its type. What the Bind leaves open is for the ordinary way.
func TestBatchByKeyIsForFastPath(t *testing.T) {
	m, err := sharding.New(sharding.Definition{
		Shards: []sharding.Shard{{Name: "s1", Buckets: []sharding.Range{{First: 0, Last: 2047}}}, {Name: "s2", Buckets: []sharding.Range{{First: 2048, Last: 4095}}}},
		Tables: []sharding.Table{{Name: "kept", Kind: sharding.Sharded, Column: "id", Type: sharding.Int8}},
	})
	if err != nil {
		t.Fatal(err)
	}
	rt, err := router.New(router.Config{Map: m, Catalog: &router.Catalog{Tables: []router.Table{
		{Schema: "public", Name: "kept", Columns: []router.Column{{Name: "id", OID: 20, Deterministic: true}, {Name: "v", OID: 25, Deterministic: true}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	view, err := router.NewSession("app", "", "UTF8", true)
	if err != nil {
		t.Fatal(err)
	}
	const sql = "SELECT v FROM kept WHERE id = $1"
	where := map[int]int{} // how many keys go to each shard
	for _, oids := range [][]uint32{nil, {20}} {
		s := &session{view: view}
		st := &statement{sql: []byte(sql), oids: oids, rt: rt, view: view, template: rt.Template(new(router.Scratch), view, []byte(sql), oids)}
		for key := range int64(20) {
			binaryKey := binary.BigEndian.AppendUint64(nil, uint64(key))
			textKey := []byte{byte('0' + key/10), byte('0' + key%10)}
			var shard [2]int
			for i, value := range [][]byte{textKey, binaryKey} {
				batch := wire.AppendParse(nil, "", sql, oids)
				var formats []int16
				if i == 1 {
					formats = []int16{1}
				}
				batch = wire.AppendBind(batch, "", "", formats, [][]byte{value}, nil)
				batch = wire.AppendSync(wire.AppendExecute(wire.AppendDescribe(batch, wire.KindPortal, ""), "", 0))
				x, ok := readLoneBatch(batch)
				if !ok || !x.describes || !x.parses {
					t.Fatal("the batch is not seen to be one of the fast path")
				}
				p := s.bound(st.template, &x.bind)
				if p == nil || !single(p) {
					t.Fatalf("key %d, types %v, binary %v: the plan is %v, want one for the fast path", key, oids, i == 1, p)
				}
				shard[i] = p.Shards[0]
			}
			if shard[0] != shard[1] {
				t.Errorf("key %d is on shard %d as text, on %d in binary", key, shard[0], shard[1])
			}
			where[shard[0]]++
		}
		for name, values := range map[string][][]byte{"no value": nil, "two values": {[]byte("1"), []byte("2")}} {
			m, err := wire.DecodeBind(wire.AppendBind(nil, "", "", nil, values, nil)[wire.HeaderLen:])
			if err != nil {
				t.Fatal(err)
			}
			if p := s.bound(st.template, &m); p != nil {
				t.Errorf("%s: planned on the fast path as %v", name, p)
			}
		}
	}
	if len(where) != 2 || where[0] == 0 || where[1] == 0 {
		t.Errorf("keys go to the shards %v, want some to each", where)
	}
}
