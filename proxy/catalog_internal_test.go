package proxy

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/tidemarkdb/tidemark/router"
	"github.com/tidemarkdb/tidemark/sharding"
)

// Changes of the schema that pass while the catalog is read share the next reading, which begins behind all of them; one that passes
// behind that has its own.
func TestChangesShareAReading(t *testing.T) {
	m, err := sharding.New(sharding.Definition{Shards: []sharding.Shard{{Name: "s1", Buckets: []sharding.Range{{First: 0, Last: sharding.DefaultBuckets - 1}}}}})
	if err != nil {
		t.Fatal(err)
	}
	began, goOn := make(chan uint64), make(chan struct{})
	p := &Proxy{shardMap: m}
	p.catalog = func(context.Context) (*router.Catalog, error) {
		began <- p.changes.Load()
		<-goOn
		return &router.Catalog{}, nil
	}
	var changes sync.WaitGroup
	changes.Go(p.ReloadCatalog)
	if seen := <-began; seen != 1 {
		t.Fatalf("the first reading begins behind %d changes", seen)
	}
	for range 5 {
		changes.Go(p.ReloadCatalog)
	}
	for end := time.Now().Add(time.Minute); p.changes.Load() < 6; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d changes", p.changes.Load())
		}
	}
	goOn <- struct{}{}
	if seen := <-began; seen != 6 {
		t.Errorf("the second reading begins behind %d changes", seen)
	}
	goOn <- struct{}{}
	ended := make(chan struct{})
	go func() { changes.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-began:
		t.Fatal("a third reading for six changes")
	}
	changes.Go(p.ReloadCatalog)
	if seen := <-began; seen != 7 {
		t.Errorf("the third reading begins behind %d changes", seen)
	}
	goOn <- struct{}{}
	changes.Wait()
}
