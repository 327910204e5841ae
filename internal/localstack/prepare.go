package localstack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Prepare fetches every program that spec needs and makes the templates that its start copies, so that Start takes seconds.
// It starts nothing that stays.
func Prepare(ctx context.Context, spec Spec) error {
	if err := spec.check(); err != nil {
		return err
	}
	a, err := unprivileged()
	if err != nil {
		return err
	}
	s := &Stack{spec: spec, account: a, begun: time.Now(), nursery: newNursery()}
	defer s.nursery.close()
	defer s.ports.release()
	f := s.fetcher()
	g, ctx := errgroup.WithContext(ctx)
	seen := map[string]int{}
	for _, spec := range spec.Shards {
		p := newPostgres(s, spec, func(string) int { return 0 })
		ordinal := seen[p.Version]
		seen[p.Version]++
		g.Go(func() error {
			var err error
			if p.bin, err = f.postgres(ctx, p.Version); err == nil {
				_, err = p.template(ctx, s, ordinal)
			}
			return s.prepared(p.Name, p.bin, err)
		})
	}
	if spec.Kafka {
		g.Go(func() error {
			k := &Kafka{}
			err := k.locate(ctx, s)
			return s.prepared("kafka", k.libs, err)
		})
	}
	if spec.Elasticsearch {
		g.Go(func() error {
			e := &Elastic{}
			err := e.locate(ctx, s)
			return s.prepared("elasticsearch", e.home, err)
		})
	}
	if spec.Redis {
		g.Go(func() error {
			program, _, err := f.redis(ctx)
			return s.prepared("redis", program, err)
		})
	}
	return g.Wait()
}

func (s *Stack) prepared(name, where string, err error) error {
	if err == nil {
		s.report(name, Ready, where)
	}
	return err
}

// Relock downloads every coordinate of a lock file and writes the file anew with the sizes and sums of what came. It is how a version is
// changed: edit the coordinates, relock, read the difference.
func Relock(ctx context.Context, path string, progress func(Event)) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	files, err := parseLock(string(text))
	if err != nil {
		return err
	}
	begun := time.Now()
	f := &fetcher{say: func(name, detail string) {
		progress(Event{Service: name, State: Fetching, Detail: detail, Elapsed: time.Since(begun)})
	}}
	dir, err := os.MkdirTemp("", "tidemark-relock-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	if err := f.download(ctx, files, dir); err != nil {
		return err
	}
	var out strings.Builder
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			out.WriteString(line)
		}
	}
	for _, d := range files {
		size, sum, err := measure(filepath.Join(dir, d.file()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%s\t%s\t%d\t%s\n", d.distribution, d.coordinates, size, sum)
	}
	return os.WriteFile(path, []byte(out.String()), 0o644)
}
