package main

import (
	"strconv"

	"github.com/tidemarkdb/tidemark/replication"
)

// metrics reads the numbers of captures, publishers and projections.
func (p *projector) metrics() scrape {
	state := gauge("capture_state", "1 for the state that the shard's capture is in.", "shard", "state")
	rows := gauge("capture_snapshot_rows", "Rows of the running or last snapshot.", "shard")
	level := gauge("capture_level_lsn", "Position of the write-ahead log up to which the shard is published, in bytes.", "shard")
	transactions := gauge("publisher_pending_transactions", "Transactions that Kafka has not acknowledged.", "shard")
	bytes := gauge("publisher_pending_bytes", "Their size.", "shard")
	labels := []string{"view", "topic", "partition"}
	lag := gauge("projection_lag_events", "Events of a partition that wait to be applied.", labels...)
	applied := counter("projection_events_total", "Events applied by this process.", labels...)
	retries := counter("projection_retries_total", "Failed attempts to apply events.", labels...)
	dead := counter("projection_dead_letters_total", "Events given up and put into the dead-letter queue.", labels...)
	failing := gauge("projection_failing", "1 while a partition stands still because its store fails.", labels...)
	missing := gauge("view_dead_letters", "Events of a view that lie in the dead-letter queue.", "view")
	states := []replication.State{replication.Stopped, replication.Connecting, replication.Waiting, replication.Snapshotting, replication.Streaming}

	return scrape{
		metrics: []metric{state, rows, level, transactions, bytes, lag, applied, retries, dead, failing, missing},
		read: func(emit func(metric, float64, ...string)) {
			for _, c := range p.captures {
				shard, status := c.shard.Name, c.Status()
				for _, s := range states {
					emit(state, oneIf(status.State == s), shard, string(s))
				}
				emit(rows, float64(status.SnapshotRows), shard)
				emit(level, float64(status.Level.LSN), shard)
				waiting, size := c.publisher.Pending()
				emit(transactions, float64(waiting), shard)
				emit(bytes, float64(size), shard)
			}
			for _, s := range p.runner.Stats() {
				at := []string{s.View.Name, s.Topic, strconv.Itoa(s.Partition)}
				emit(lag, float64(s.Lag()), at...)
				emit(applied, float64(s.Events), at...)
				emit(retries, float64(s.Retries), at...)
				emit(dead, float64(s.DeadLettered), at...)
				emit(failing, oneIf(s.Failing != nil), at...)
			}
			letters := map[string]int{}
			for _, g := range p.levels.Lags() {
				letters[g.View.Name] = max(letters[g.View.Name], g.Exceptions) // the same number for each shard
			}
			for view, n := range letters {
				emit(missing, float64(n), view)
			}
		},
	}
}
