package elastic_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/cqrs/cqrstest"
	"github.com/tidemarkdb/tidemark/cqrs/elastic"
)

func open(t *testing.T, cfg elastic.Config) *elastic.Model {
	t.Helper()
	m, err := elastic.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestConformance(t *testing.T) {
	cqrstest.Suite{
		Addr: server(t), FullText: true, Unindexed: []uint32{pgtype.ByteaOID},
		Open: func(t *testing.T, name string, cols []cqrs.Column, addr string) cqrstest.Store {
			return open(t, elastic.Config{
				Name: name, Addresses: []string{"http://" + addr}, Columns: cols, Shards: 2,
				PageBytes: 200 << 10, BulkBytes: 256 << 10, // so that there are many of both
			})
		},
	}.Run(t)
}
