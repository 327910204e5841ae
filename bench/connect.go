package main

import "context"

// connects is a storm of logins: pgbench -C connects anew for each transaction.
func connects(b *bench) *scenario {
	const clients = 8
	run := func(tls bool) func(context.Context, *peer) (sample, error) {
		return func(ctx context.Context, p *peer) (sample, error) {
			o, err := load{clients: clients, threads: clients, seconds: b.seconds, mode: "simple", sampling: 1, tls: tls, args: []string{"-C", "-S"}}.run(ctx, p)
			return sample{o.tps, o.user, o.system, o.user + o.system}, err
		}
	}
	return &scenario{
		name: "connect", title: "Connect, one statement, disconnect",
		note: "pgbench -C -S, 8 clients, logins by SCRAM-SHA-256 from a stored verifier, plain and by TLS 1.3 with an ECDSA P-256 certificate. " +
			"CPU is that of the proxy's process per login.",
		keys: []string{"transport"}, cost: "CPU µs",
		columns: []column{
			{name: "logins/s"},
			{name: "user µs", proxy: true},
			{name: "system µs", proxy: true},
			{name: "CPU µs", proxy: true},
		},
		points: []point{
			{labels: []string{"plain"}, measure: run(false)},
			{labels: []string{"TLS"}, skip: func(p *peer) bool { return !p.proxy() }, measure: run(true)},
		},
	}
}
