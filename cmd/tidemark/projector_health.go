package main

import (
	"context"
	"fmt"
	"time"

	"github.com/tidemarkdb/tidemark/replication"
)

// standstill is how long a partition may fail to apply before /health says so: shorter outages mend themselves.
const standstill = 5 * time.Second

// probes are those of /health.
func (p *projector) probes() []probe {
	probes := []probe{{name: "kafka", run: func(ctx context.Context) (string, error) { return "", p.bus.Health(ctx) }}}
	for _, c := range p.captures {
		probes = append(probes, probe{name: "capture " + c.shard.Name, run: func(context.Context) (string, error) {
			status := c.Status()
			switch status.State {
			case replication.Streaming:
				return fmt.Sprintf("streaming, published up to %s", status.Level.LSN), nil
			case replication.Snapshotting:
				return fmt.Sprintf("snapshot, %d rows so far", status.SnapshotRows), nil
			case replication.Waiting:
				return "another projector has it", nil
			}
			return "", fmt.Errorf("it is %s", status.State)
		}})
	}
	for i, v := range p.c.Views {
		probes = append(probes, probe{name: "view " + v.Name, run: func(ctx context.Context) (string, error) {
			if err := p.models[i].Check(ctx); err != nil {
				return "", err
			}
			return p.viewHealth(v.Name)
		}})
	}
	return probes
}

// viewHealth sums up the partitions of a view that this process has.
func (p *projector) viewHealth(name string) (string, error) {
	partitions, waiting := 0, int64(0)
	for _, s := range p.runner.Stats() {
		if s.View.Name != name {
			continue
		}
		if s.Failing != nil && time.Since(s.Since) > standstill {
			return "", fmt.Errorf("partition %d of %s stands still since %s: %w", s.Partition, s.Topic, s.Since.UTC().Format(time.RFC3339), s.Failing)
		}
		partitions++
		waiting += s.Lag()
	}
	return fmt.Sprintf("%s here, %s waiting", counted(partitions, "partition"), counted(int(waiting), "event")), nil
}
