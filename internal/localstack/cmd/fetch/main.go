// Fetch brings what localstack starts into the cache folder (PostgreSQL 15 and 18, Kafka, Elasticsearch, Redis), so that tests
// do not wait for downloads. With -lock it writes the checksums of the coordinates in downloads.lock anew.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/tidemarkdb/tidemark/internal/localstack"
)

func main() {
	lock := flag.String("lock", "", "write the lock `file` (internal/localstack/downloads.lock) anew: download each of its coordinates and note size and SHA-256")
	versions := flag.String("postgres", "15,18", "major `versions` of PostgreSQL, separated by commas")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	var err error
	if *lock != "" {
		err = localstack.Relock(ctx, *lock, progress)
	} else {
		err = fetch(ctx, strings.Split(*versions, ","))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fetch:", err)
		cancel()
		os.Exit(1)
	}
}

func fetch(ctx context.Context, versions []string) error {
	spec := localstack.Spec{Kafka: true, Elasticsearch: true, Redis: true, Progress: progress}
	for _, v := range versions {
		for _, shard := range []string{"a", "b"} { // each shard of a cluster has a template of its own
			spec.Shards = append(spec.Shards, localstack.PostgresSpec{Name: "postgres" + v + shard, Version: v})
		}
	}
	return localstack.Prepare(ctx, spec)
}

func progress(e localstack.Event) { fmt.Println("fetch:", e) }
