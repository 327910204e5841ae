package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
)

// tpcbByBranch is pgbench's TPC-B with the branch in every statement, and the account of that branch: a transaction of one key.
const tpcbByBranch = `\set bid random(1, :branches)
\set aid (:bid - 1) * 100000 + random(1, 100000)
\set tid (:bid - 1) * 10 + random(1, 10)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid AND bid = :bid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid AND bid = :bid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid AND bid = :bid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
END;
`

// tpcb is pgbench's default transaction, and a variant of it that can be sharded, by each of its protocols.
func tpcb(b *bench) *scenario {
	const clients = 8
	s := &scenario{
		name: "tpcb", title: "TPC-B",
		note: "8 clients, seven statements in each transaction. *default* is pgbench's own script; it cannot be sharded, because its account is of any branch and " +
			"a transaction stays on one shard. *by branch* names the branch in every statement; tidemark-sharded keeps the four tables sharded by it.",
		keys: []string{"script", "mode"}, columns: latencyColumns, cost: "CPU µs",
		sharding: "{pgbench_accounts: {key: bid, type: int}, pgbench_branches: {key: bid, type: int}, pgbench_tellers: {key: bid, type: int}, pgbench_history: {key: bid, type: int}}",
	}
	script := filepath.Join(b.dir, "tpcb-by-branch.sql")
	for _, mode := range modes {
		run := func(ctx context.Context, p *peer, args ...string) (sample, error) {
			return load{clients: clients, seconds: b.seconds, mode: mode, sampling: 1, args: args}.sample(ctx, p)
		}
		s.points = append(s.points,
			point{labels: []string{"default", mode}, skip: (*peer).sharded, measure: func(ctx context.Context, p *peer) (sample, error) {
				return run(ctx, p, "-b", "tpcb-like")
			}},
			point{labels: []string{"by branch", mode}, measure: func(ctx context.Context, p *peer) (sample, error) {
				if err := os.WriteFile(script, []byte(tpcbByBranch), 0o644); err != nil {
					return nil, err
				}
				return run(ctx, p, "-f", script, "-D", "branches="+strconv.Itoa(b.scale))
			}})
	}
	return s
}
