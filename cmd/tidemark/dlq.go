package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/cqrs/kafka"
	"github.com/tidemarkdb/tidemark/internal/config"
)

// dlqTimeout bounds one dlq command's work on Kafka.
const dlqTimeout = time.Minute

func newDLQ() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dlq",
		Short: "Look at events that could not be applied, and apply them after all",
		Long: `An event that a read model can never take, such as a value that does not fit the index, goes to the dead-letter
queue with its cause, and its partition goes on. Reads of that key under session consistency say so instead of
giving the old value. Once the cause is mended, replay the event: it is applied under the same version check
as any other, so that it never undoes something newer and may be repeated.`,
		Example: `  tidemark dlq list -c shop.yaml
  tidemark dlq list -c shop.yaml --view order_search
  tidemark dlq show -c shop.yaml order_search@1/tidemark.shop.public.orders/3/1042
  tidemark dlq replay -c shop.yaml order_search@1/tidemark.shop.public.orders/3/1042
  tidemark dlq replay -c shop.yaml --view order_search
  tidemark dlq discard -c shop.yaml order_search@1/tidemark.shop.public.orders/3/1042`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDLQList(), newDLQShow(), newDLQReplay(), newDLQDiscard())
	return cmd
}

// withQueue opens the queue that a configuration names and gives it to do.
func withQueue(cmd *cobra.Command, file string, do func(ctx context.Context, c *config.Config, q *cqrs.DLQ) error) error {
	c, err := load(file)
	if err != nil {
		return err
	}
	if len(c.Kafka.Brokers) == 0 {
		return usageError{fmt.Errorf("%s: there is no dead-letter queue without kafka", c.File)}
	}
	busConfig, err := c.Bus(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return err
	}
	bus, err := kafka.Open(busConfig)
	if err != nil {
		return err
	}
	defer bus.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), dlqTimeout)
	defer cancel()
	return do(ctx, c, cqrs.NewDLQ(bus, c.Names()))
}

func newDLQList() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the events in the queue, oldest first",
		Long: `Prints a line for each event in the dead-letter queue: when it failed, its id, its key and the cause.
The id is what show, replay and discard take: VIEW@GENERATION/TOPIC/PARTITION/OFFSET.`,
		Example: `  tidemark dlq list -c shop.yaml
  tidemark dlq list -c shop.yaml --view order_search --limit 10
  tidemark dlq list -c shop.yaml --json | jq .cause`,
		Args: args(cobra.NoArgs),
	}
	file := configFlag(cmd)
	view := cmd.Flags().String("view", "", "only of this view")
	limit := cmd.Flags().Int("limit", 100, "how many at most")
	asJSON := cmd.Flags().Bool("json", false, "one JSON object per line")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return withQueue(cmd, *file, func(ctx context.Context, c *config.Config, q *cqrs.DLQ) error {
			if _, err := viewsNamed(c, *view); err != nil {
				return err
			}
			letters, more, err := q.List(ctx, *view, *limit)
			if err != nil {
				return err
			}
			if *asJSON {
				return printJSONLines(cmd.OutOrStdout(), letters)
			}
			return printLetters(cmd.OutOrStdout(), letters, more)
		})
	}
	return cmd
}

func printJSONLines(w io.Writer, letters []cqrs.DeadLetter) error {
	e := json.NewEncoder(w)
	for i := range letters {
		if err := e.Encode(letterView(&letters[i])); err != nil {
			return err
		}
	}
	return nil
}

func printLetters(w io.Writer, letters []cqrs.DeadLetter, more bool) error {
	if len(letters) == 0 {
		_, err := fmt.Fprintln(w, "the dead-letter queue is empty")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	say(table, "AT\tID\tKEY\tCAUSE\n")
	for i := range letters {
		d := &letters[i]
		say(table, "%s\t%s\t%s\t%s\n", d.At.Format(time.RFC3339), d.ID(), d.Key, d.Cause)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if more {
		_, err := fmt.Fprintln(w, "there are more; raise --limit")
		return err
	}
	return nil
}

func newDLQShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one event with its payload and its cause",
		Long: `Prints the event as JSON: where it comes from, why and how often it failed, and the event itself as
it is on its topic (docs/events.md).`,
		Example: `  tidemark dlq show -c shop.yaml order_search@1/tidemark.shop.public.orders/3/1042
  tidemark dlq show -c shop.yaml order_search@1/tidemark.shop.public.orders/3/1042 | jq .event.after`,
		Args: args(cobra.ExactArgs(1)),
	}
	file := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return withQueue(cmd, *file, func(ctx context.Context, _ *config.Config, q *cqrs.DLQ) error {
			d, err := q.Show(ctx, args[0])
			if err != nil {
				return err
			}
			e := json.NewEncoder(cmd.OutOrStdout())
			e.SetIndent("", "  ")
			return e.Encode(letterView(&d))
		})
	}
	return cmd
}

// letterView is a dead letter for people: keys and payloads as the JSON that they are, where they are.
func letterView(d *cqrs.DeadLetter) any {
	return struct {
		ID        string          `json:"id"`
		At        time.Time       `json:"at"`
		View      string          `json:"view"`
		Topic     string          `json:"topic"`
		Partition int             `json:"partition"`
		Offset    int64           `json:"offset"`
		Shard     string          `json:"shard,omitempty"`
		LSN       string          `json:"lsn,omitempty"`
		Attempts  int             `json:"attempts"`
		Cause     string          `json:"cause"`
		Key       json.RawMessage `json:"key,omitempty"`
		Event     json.RawMessage `json:"event,omitempty"`
	}{d.ID(), d.At, d.View.String(), d.Topic, d.Partition, d.Offset, d.Shard, d.LSN, d.Attempts, d.Cause, asJSON(d.Key), asJSON(d.Value)}
}

// asJSON is b itself when it is JSON, and a JSON string of it when not.
func asJSON(b []byte) json.RawMessage {
	if len(b) == 0 {
		return nil
	}
	if json.Valid(b) {
		return b
	}
	quoted, err := json.Marshal(string(b))
	if err != nil {
		return nil // a string can always be marshalled
	}
	return quoted
}

func newDLQReplay() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replay [ID]",
		Short: "Apply an event, or all of a view, after all",
		Long: `Applies one event, or with --view all events of a view, to the read model and takes them out of the queue.
An older event than what the read model holds changes nothing, so a replay never undoes a newer state.
What fails again stays in the queue, and the exit code is 1.`,
		Example: `  tidemark dlq replay -c shop.yaml order_search@1/tidemark.shop.public.orders/3/1042
  tidemark dlq replay -c shop.yaml --view order_search`,
		Args: args(cobra.MaximumNArgs(1)),
	}
	file := configFlag(cmd)
	view := cmd.Flags().String("view", "", "all events of this view")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if (len(args) == 1) == (*view != "") {
			return usageError{errors.New("give either an ID or --view; tidemark dlq list shows what there is")}
		}
		return withQueue(cmd, *file, func(ctx context.Context, c *config.Config, q *cqrs.DLQ) error {
			if len(args) == 1 {
				return replay(ctx, cmd.OutOrStdout(), c, q, args)
			}
			if _, err := viewsNamed(c, *view); err != nil {
				return err
			}
			letters, _, err := q.List(ctx, *view, maxReplay)
			if err != nil {
				return err
			}
			var ids []string
			for i := range letters {
				ids = append(ids, letters[i].ID())
			}
			return replay(ctx, cmd.OutOrStdout(), c, q, ids)
		})
	}
	return cmd
}

// maxReplay bounds one replay of a view; another run goes on.
const maxReplay = 10_000

func replay(ctx context.Context, out io.Writer, c *config.Config, q *cqrs.DLQ, ids []string) error {
	models := map[string]readModel{}
	defer func() {
		for _, m := range models {
			_ = m.Close() // idle connections of a process that ends
		}
	}()
	failed := 0
	for _, id := range ids {
		err := replayOne(ctx, c, q, models, id)
		if err != nil {
			failed++
			say(out, "✗ %s: %v\n", id, err)
			continue
		}
		say(out, "✓ %s\n", id)
	}
	switch {
	case failed > 0:
		say(out, "%d of %s failed; what failed stays in the queue\n", failed, counted(len(ids), "event"))
		return errReported
	case len(ids) == 0:
		say(out, "there is nothing to replay\n")
	}
	return nil
}

func replayOne(ctx context.Context, c *config.Config, q *cqrs.DLQ, models map[string]readModel, id string) error {
	d, err := q.Show(ctx, id)
	if err != nil {
		return err
	}
	m := models[d.View.Name]
	if m == nil {
		views, err := viewsNamed(c, d.View.Name)
		if err != nil {
			return err
		}
		columns, err := viewColumns(ctx, c, views[0])
		if err != nil {
			return err
		}
		if m, err = openModel(c, views[0], columns); err != nil {
			return err
		}
		models[d.View.Name] = m
	}
	return q.Replay(ctx, id, m)
}

func newDLQDiscard() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "discard ID",
		Short: "Take an event out of the queue without applying it",
		Long: `Takes the event out of the queue. The read model stays without it until its row changes again,
and reads do not mention it any more.`,
		Example: `  tidemark dlq discard -c shop.yaml order_search@1/tidemark.shop.public.orders/3/1042`,
		Args:    args(cobra.ExactArgs(1)),
	}
	file := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return withQueue(cmd, *file, func(ctx context.Context, _ *config.Config, q *cqrs.DLQ) error {
			return q.Discard(ctx, args[0])
		})
	}
	return cmd
}

// viewsNamed is the view of that name, or all when the name is empty.
func viewsNamed(c *config.Config, name string) ([]config.View, error) {
	if name == "" {
		return c.Views, nil
	}
	i := slices.IndexFunc(c.Views, func(v config.View) bool { return v.Name == name })
	if i < 0 {
		return nil, usageError{fmt.Errorf("%s declares no view %s", c.File, name)}
	}
	return c.Views[i : i+1], nil
}
