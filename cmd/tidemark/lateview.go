package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/internal/config"
)

// lateView is a view whose table may not exist yet, or may change: its columns are learned with each reading of the catalog.
type lateView struct {
	c *config.Config
	v config.View

	mu     sync.RWMutex // guards what follows
	model  readModel    // nil: the table is not there
	opened []cqrs.Column
}

var _ cqrs.View = (*lateView)(nil)

// learn asks the shard for the table's columns, and opens the read model with them when they are new.
func (l *lateView) learn(ctx context.Context, conn *pgx.Conn) error {
	columns, err := tableColumns(ctx, conn, l.v.From)
	if err != nil && !errors.Is(err, errNoTable) {
		return fmt.Errorf("view %s: %w", l.v.Name, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if reflect.DeepEqual(columns, l.opened) {
		return nil
	}
	var model readModel
	if len(columns) > 0 {
		if model, err = openModel(l.c, l.v, columns); err != nil {
			return err
		}
	}
	// The old one is not closed: scans may be running, and it holds nothing but idle connections, which time out.
	l.model, l.opened = model, columns
	return nil
}

func (l *lateView) current() readModel {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.model
}

// Name implements cqrs.View.
func (l *lateView) Name() string { return l.v.Name }

// Columns implements cqrs.View; there are none while the table does not exist.
func (l *lateView) Columns() []cqrs.Column {
	if m := l.current(); m != nil {
		return m.Columns()
	}
	return nil
}

// Scan implements cqrs.View.
func (l *lateView) Scan(ctx context.Context, q cqrs.Query, emit func(row [][]byte) error) error {
	m := l.current()
	if m == nil {
		return fmt.Errorf("view %s: its table %s does not exist: %w", l.v.Name, l.v.From, cqrs.ErrUnsupported)
	}
	return m.Scan(ctx, q, emit)
}

// Refresh implements cqrs.View.
func (l *lateView) Refresh(ctx context.Context) error {
	if m := l.current(); m != nil {
		return m.Refresh(ctx)
	}
	return nil
}

// check says whether the view can be read, for /health.
func (l *lateView) check(ctx context.Context) (string, error) {
	m := l.current()
	if m == nil {
		return "its table does not exist yet", nil
	}
	return "", m.Check(ctx)
}
