package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/tidemarkdb/tidemark/cmd/tidemark/shop"
	"github.com/tidemarkdb/tidemark/internal/localstack"
)

// demo is what tidemark demo was asked for.
type demo struct {
	duration time.Duration // 0: until Ctrl-C
	dir      string        // empty: a temporary folder
	keep     bool
	postgres string // major version; empty: the newest that is installed, else localstack's
	shop     shop.Shop

	out io.Writer
	p   *progress
}

func newDemo() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run everything on this machine, with a shop to try it on",
		Long: `Starts real services as local processes, on free ports of 127.0.0.1:
  two PostgreSQL shards in two regions (s1 in eu, s2 in us), each a primary with a streaming replica,
  Kafka, Elasticsearch and Redis,
  and of this program a proxy and a projector.
Then it creates a shop through the proxy (1,000 products, 10,000 customers, 100,000 orders and their lines),
waits until the read models have caught up, prints psql commands to try, and runs until Ctrl-C.

Programs that are not installed are fetched from Maven Central and Debian, verified and cached; this happens once.
Everything together takes less than 3 GB of memory. On the way out every process is stopped and the data is
removed, unless --keep is given. Nothing outlives this process, even when it is killed.`,
		Example: `  tidemark demo
  tidemark demo --for 1m                 stop by itself
  tidemark demo --data shop-data --keep  leave the data; the same command goes on with it
  tidemark demo --postgres 15            another major version of PostgreSQL`,
		Args: args(cobra.NoArgs),
	}
	d := demo{shop: shop.Demo}
	cmd.Flags().DurationVar(&d.duration, "for", 0, "how long to run once everything is up; until Ctrl-C when not given")
	cmd.Flags().StringVar(&d.dir, "data", "", "folder for data, configuration and logs; a temporary one when not given")
	cmd.Flags().BoolVar(&d.keep, "keep", false, "leave that folder when the demo ends")
	cmd.Flags().StringVar(&d.postgres, "postgres", "", "major version of PostgreSQL; the newest installed one, or else "+localstack.DefaultPostgresVersion)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		d.out = cmd.OutOrStdout()
		return d.run(cmd.Context())
	}
	return cmd
}

// run is the demo from beginning to end. Whatever was started is stopped when it returns, the last first.
func (d *demo) run(ctx context.Context) (err error) {
	if err := d.checkDir(); err != nil {
		return err
	}
	d.chooseVersion()
	d.p = newProgress(d.out, isTerminal(d.out))
	up, err := d.start(ctx)
	d.p.close()
	defer func() { err = errors.Join(err, up.stop(d.out, d.keep)) }()
	if err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted while starting")
		}
		return err
	}
	up.printPage(d.out, time.Since(d.p.begun))
	return up.wait(ctx, d.duration)
}

// running is a started demo, or as much of one as was started.
type running struct {
	stack            *localstack.Stack
	addresses        demoAddresses
	config           string
	proxy, projector *child
}

// start starts everything and loads the shop. When it fails, what it started is in its result.
//
// What takes longest is Elasticsearch and loading: they go on side by side. All addresses are known at once, so that the proxy can start
// as soon as PostgreSQL answers; the projector, whose first step is to copy what is there, comes last.
func (d *demo) start(ctx context.Context) (up *running, err error) {
	up = new(running)
	if up.stack, err = localstack.Begin(ctx, d.spec()); err != nil {
		return up, err
	}
	var moved bool
	if up.addresses, moved, err = chooseAddresses(); err != nil {
		return up, err
	}
	if moved {
		d.p.line("·", "some of the ports 6432, 9632 and 9633 are in use: free ones were taken instead")
	}
	if up.config, err = writeDemoConfig(up.stack, up.addresses); err != nil {
		return up, fmt.Errorf("write the configuration: %w", err)
	}
	if err := up.stack.WaitPostgres(ctx); err != nil {
		return up, err
	}
	if err := createDatabases(ctx, up.stack); err != nil {
		return up, err
	}
	if up.proxy, err = d.child(ctx, up, "proxy", up.addresses.proxyHTTP, "clients connect to "+up.addresses.proxy); err != nil {
		return up, err
	}
	conn, err := pgx.Connect(ctx, demoURL(up.addresses.proxy))
	if err != nil {
		return up, fmt.Errorf("connect through the proxy: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var created bool
	eg, both := errgroup.WithContext(ctx)
	eg.Go(func() error { return up.stack.Wait(both) })
	eg.Go(func() (err error) {
		created, err = d.fill(both, conn)
		return err
	})
	if err := eg.Wait(); err != nil {
		return up, err
	}
	if up.projector, err = d.child(ctx, up, "projector", up.addresses.projectorHTTP, "from PostgreSQL to Kafka, and on to the read models"); err != nil {
		return up, err
	}
	if !created {
		return up, nil
	}
	return up, d.catchUp(ctx, conn)
}

// fill creates the shop and loads it, unless an earlier demo has left it.
func (d *demo) fill(ctx context.Context, conn *pgx.Conn) (created bool, err error) {
	step := d.p.start("schema")
	if created, err = createSchema(ctx, conn); err != nil {
		step.failed()
		return false, err
	}
	if !created {
		step.done("found, with the data of an earlier demo")
		return false, nil
	}
	step.done("4 tables on every shard, through the proxy")
	return true, loadShop(ctx, conn, d.shop, d.p)
}

// child starts a process of this binary and waits until it is ready.
func (d *demo) child(ctx context.Context, up *running, name, http, what string) (*child, error) {
	step := d.p.start(name)
	args := []string{name, "--config", up.config}
	if name == "projector" {
		args = append(args, "--http", http)
	}
	c, err := startChild(name, filepath.Join(up.stack.Dir, "logs"), args...)
	if err == nil {
		err = c.ready(ctx, "http://"+http+"/ready")
	}
	if err != nil {
		step.failed()
		return c, err
	}
	step.done(what)
	return c, nil
}

// spec is the stack to start. Its progress goes to ours.
func (d *demo) spec() localstack.Spec {
	spec := localstack.Spec{Kafka: true, Elasticsearch: true, Redis: true, Dir: d.dir, Keep: d.keep, Durable: d.keep}
	for _, s := range demoShards {
		spec.Shards = append(spec.Shards, localstack.PostgresSpec{Name: s.name, Replicas: 1, Version: d.postgres})
	}
	version := cmp.Or(d.postgres, localstack.DefaultPostgresVersion)
	what := map[string]string{"kafka": "one broker, KRaft", "elasticsearch": "one node", "redis": "one server"}
	for _, s := range demoShards {
		what[s.name+"-primary"] = "PostgreSQL " + version + " for region " + s.region
		what[s.name+"-replica0"] = "streams from it"
	}
	steps := map[string]*step{}
	spec.Progress = func(e localstack.Event) {
		switch e.State {
		case localstack.Fetching:
			d.p.line("·", "%-22s fetching: %s", e.Service, e.Detail)
		case localstack.Starting:
			if steps[e.Service] == nil {
				steps[e.Service] = d.p.start(e.Service)
			}
		case localstack.Ready:
			if s := steps[e.Service]; s != nil {
				s.done(cmp.Or(e.Detail, what[e.Service]))
				delete(steps, e.Service)
			}
		}
	}
	return spec
}

// chooseVersion takes an installed PostgreSQL before one that would have to be fetched, and says so when it is not the usual one.
func (d *demo) chooseVersion() {
	if d.postgres != "" {
		return
	}
	for _, v := range slices.Backward(localstack.PostgresVersions) {
		if _, err := os.Stat(filepath.Join("/usr/lib/postgresql", v, "bin", "initdb")); err == nil || os.Getenv("TIDEMARK_POSTGRES_"+v) != "" {
			d.postgres = v
			if v != localstack.DefaultPostgresVersion {
				say(d.out, "· PostgreSQL %s, which is installed, is used; --postgres %s would fetch that\n", v, localstack.DefaultPostgresVersion)
			}
			return
		}
	}
}

// checkDir refuses a folder with something else in it: it will be changed, and removed without --keep.
func (d *demo) checkDir() error {
	if d.dir == "" {
		if d.keep {
			return usageError{errors.New("--keep needs --data DIR: where to keep it")}
		}
		return nil
	}
	entries, err := os.ReadDir(d.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("look into --data: %w", err)
	}
	ours := slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == "ports.json" })
	if len(entries) > 0 && !ours {
		return usageError{fmt.Errorf("--data %s: the folder is not empty and not of an earlier demo; choose another one", d.dir)}
	}
	return nil
}

// wait returns when the time is over, at Ctrl-C, or with an error when a process ends unasked.
func (up *running) wait(ctx context.Context, d time.Duration) error {
	var over <-chan time.Time
	if d > 0 {
		over = time.After(d)
	}
	select {
	case <-ctx.Done():
		return nil
	case <-over:
		return nil
	case <-up.proxy.ended:
		return up.proxy.unexpected()
	case <-up.projector.ended:
		return up.projector.unexpected()
	}
}

// stop stops what was started, the last first.
func (up *running) stop(out io.Writer, kept bool) error {
	var errs []error
	for _, c := range []*child{up.projector, up.proxy} {
		if c != nil {
			errs = append(errs, c.stop())
		}
	}
	if up.stack != nil {
		errs = append(errs, up.stack.Stop())
		if kept {
			say(out, "\nstopped; the data is in %s\n", up.stack.Dir)
		} else {
			say(out, "\nstopped; nothing is left behind\n")
		}
	}
	return errors.Join(errs...)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
