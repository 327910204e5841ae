package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/cqrs/elastic"
	"github.com/tidemarkdb/tidemark/cqrs/redis"
	"github.com/tidemarkdb/tidemark/internal/config"
)

// readModel is an open view: what applies events to it, and what reads it.
type readModel interface {
	cqrs.Projector
	cqrs.View
	Check(ctx context.Context) error
	Prepare(ctx context.Context) error // makes it readable before its first event
	Close() error
}

var (
	_ readModel = (*elastic.Model)(nil)
	_ readModel = (*redis.Model)(nil)
)

// openModel makes the read model of a view whose table has these columns. It connects to nothing.
func openModel(c *config.Config, v config.View, columns []cqrs.Column) (readModel, error) {
	if v.Redis != nil {
		return redis.New(c.RedisModel(v, columns))
	}
	cfg, err := c.ElasticModel(v, columns)
	if err != nil {
		return nil, err
	}
	return elastic.New(cfg)
}

// errNoTable says that a view's table is not there (yet).
var errNoTable = errors.New("the table does not exist")

// tableColumns asks one shard's primary for a table's columns as the stream and clients see them: types of domains are
// their base types, and virtual generated columns, which nothing replicates, are left out.
func tableColumns(ctx context.Context, conn *pgx.Conn, table string) ([]cqrs.Column, error) {
	schema, name := config.SplitTable(table)
	full := pgx.Identifier{schema, name}.Sanitize()
	rows, err := conn.Query(ctx, `
		WITH RECURSIVE base AS (
			SELECT a.attname, a.attnum, a.atttypid AS type, a.atttypmod AS typmod
			FROM pg_attribute a WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
			UNION ALL
			SELECT b.attname, b.attnum, t.typbasetype, CASE WHEN b.typmod = -1 THEN t.typtypmod ELSE b.typmod END
			FROM base b JOIN pg_type t ON t.oid = b.type WHERE t.typtype = 'd'
		)
		SELECT b.attname, b.type, b.typmod, t.typtype = 'e',
			EXISTS (SELECT FROM pg_index i WHERE i.indrelid = to_regclass($1) AND i.indisprimary AND b.attnum = ANY (i.indkey))
		FROM base b JOIN pg_type t ON t.oid = b.type WHERE t.typtype <> 'd' ORDER BY b.attnum`, full)
	if err != nil {
		return nil, fmt.Errorf("read the columns of %s: %w", full, err)
	}
	columns, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c cqrs.Column, err error) {
		err = row.Scan(&c.Name, &c.OID, &c.TypeMod, &c.Enum, &c.Key)
		return c, err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the columns of %s: %w", full, err)
	case len(columns) == 0:
		return nil, fmt.Errorf("%s: %w", full, errNoTable)
	}
	return columns, nil
}

// modelRetry is the pause between two attempts to learn about the tables of views.
const modelRetry = time.Second

// openModels opens the read models of all views, waiting until the shards that have their tables answer.
func openModels(ctx context.Context, c *config.Config, log *slog.Logger) ([]readModel, error) {
	for {
		models, err := tryOpenModels(ctx, c)
		if err == nil || ctx.Err() != nil {
			return models, err
		}
		log.Warn("cannot read the tables of views; trying again", "error", err, "again_in", modelRetry)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(modelRetry):
		}
	}
}

func tryOpenModels(ctx context.Context, c *config.Config) (models []readModel, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, closeModels(models))
		}
	}()
	for _, v := range c.Views {
		columns, err := viewColumns(ctx, c, v)
		if err != nil {
			return models, fmt.Errorf("view %s: %w", v.Name, err)
		}
		m, err := openModel(c, v, columns)
		if err != nil {
			return models, err
		}
		models = append(models, m)
	}
	return models, nil
}

// viewColumns asks the first shard that feeds the view.
func viewColumns(ctx context.Context, c *config.Config, v config.View) ([]cqrs.Column, error) {
	shard := c.Shards[0]
	if from := c.ViewShards(v); len(from) > 0 {
		for _, s := range c.Shards {
			if s.Name == from[0] {
				shard = s
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, c.Pool.ConnectTimeout+c.Pool.ConnectTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.PrimaryConnString(shard))
	if err != nil {
		return nil, fmt.Errorf("shard %s: %w", shard.Name, err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := onCatalog(ctx, conn); err != nil {
		return nil, fmt.Errorf("shard %s: %w", shard.Name, err)
	}
	return tableColumns(ctx, conn, v.From)
}

func closeModels(models []readModel) error {
	var errs []error
	for _, m := range models {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
