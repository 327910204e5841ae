package redis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	goredis "github.com/redis/go-redis/v9"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/replication"
)

// One pipeline's size. Redis runs what arrived while it reads more, so larger ones gain nothing.
const (
	pipelineCalls = 500
	pipelineBytes = 1 << 20
)

// maxRowBytes is Redis' own limit for one string (proto-max-bulk-len); a larger one would end the connection.
const maxRowBytes = 512<<20 - 1

// call is one run of a script.
type call struct {
	script *goredis.Script
	keys   []string
	args   []any
	bytes  int
	event  int // whose error this call's error is
}

// Apply implements cqrs.Projector. Every error of Redis itself is transient: the server, its memory or its keys are
// not as they should be, which no event can help. Permanent are events that cannot become a row.
func (m *Model) Apply(ctx context.Context, events []cqrs.Event) []error {
	errs := make([]error, len(events))
	if err := m.Prepare(ctx); err != nil {
		return fill(errs, err)
	}
	var batch []call
	flush := func() {
		m.run(ctx, batch, errs)
		batch = batch[:0]
	}
	size := 0
	for i := range events {
		e := &events[i]
		switch {
		case e.Op.WholeTable():
			flush() // the rows before it, in order
			errs[i] = m.truncate(ctx, e)
			continue
		case !e.Last:
			continue // a later change of the same transaction says it all
		}
		c, err := m.put(e)
		if err != nil {
			errs[i] = err
			continue
		}
		c.event = i
		if size += c.bytes; len(batch) > 0 && (len(batch) == pipelineCalls || size > pipelineBytes) {
			flush()
			size = c.bytes
		}
		batch = append(batch, c)
	}
	flush()
	for _, err := range errs {
		if err != nil {
			return errs
		}
	}
	return nil
}

func fill(errs []error, err error) []error {
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// put is the call that writes an event's row or tombstone.
func (m *Model) put(e *cqrs.Event) (call, error) {
	id, err := e.RowID(m.cfg.Columns)
	if err != nil {
		return call{}, err
	}
	s := m.sliceOf(id)
	c := call{
		script: put,
		keys:   []string{s.row + id, s.index, s.versions, s.floors},
		args:   []any{id, e.StoredVersion().Digits(), e.Origin()},
	}
	if e.Op == replication.Delete {
		c.args = append(c.args, "d")
		return c, nil
	}
	texts, err := e.Texts(m.cfg.Columns) // also in JSON mode: what cannot be read back must not be written
	if err != nil {
		return c, err
	}
	if m.cfg.Mode == JSON {
		doc := m.document(e.After)
		c.args = append(c.args, "j", doc)
		c.bytes += len(doc)
	} else {
		c.args = append(c.args, "h")
		for i, col := range m.cfg.Columns {
			if texts[i] != nil {
				c.args = append(c.args, col.Name, texts[i])
				c.bytes += len(texts[i])
			}
		}
	}
	if c.bytes > maxRowBytes {
		return c, fmt.Errorf("%w: row %s has %d bytes, Redis takes %d", cqrs.ErrPermanent, id, c.bytes, maxRowBytes)
	}
	return c, nil
}

// document is the row's JSON object, with the columns of the model in their order.
func (m *Model) document(r cqrs.Row) []byte {
	b := []byte{'{'}
	for i, c := range m.cfg.Columns {
		if i > 0 {
			b = append(b, ',')
		}
		name, _ := json.Marshal(c.Name) // a string always marshals
		b = append(append(b, name...), ':')
		if v := r.Get(c.Name); v != nil {
			b = append(b, v...)
		} else {
			b = append(b, "null"...)
		}
	}
	return append(b, '}')
}

// run sends calls as one pipeline and files their errors. A server that does not know the script (restarted, failed
// over) gets its text with the second try; order does not matter then, since versions decide.
func (m *Model) run(ctx context.Context, batch []call, errs []error) {
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	again := m.pipeline(ctx, batch, errs, func(p goredis.Pipeliner, c call) *goredis.Cmd {
		return c.script.EvalSha(ctx, p, c.keys, c.args...)
	})
	m.pipeline(ctx, again, errs, func(p goredis.Pipeliner, c call) *goredis.Cmd {
		return c.script.Eval(ctx, p, c.keys, c.args...)
	})
}

func (m *Model) pipeline(ctx context.Context, batch []call, errs []error, eval func(goredis.Pipeliner, call) *goredis.Cmd) (unknown []call) {
	if len(batch) == 0 {
		return nil
	}
	p := m.client.Pipeline()
	cmds := make([]*goredis.Cmd, len(batch))
	for i, c := range batch {
		cmds[i] = eval(p, c)
	}
	_, err := p.Exec(ctx) // the first command's error, or one that no command has
	for i, c := range batch {
		cmdErr := cmds[i].Err()
		switch {
		case cmdErr == nil && err != nil && !isReply(err):
			cmdErr = err // not sent at all
		case goredis.HasErrorPrefix(cmdErr, "NOSCRIPT"):
			unknown = append(unknown, c)
			continue
		}
		if cmdErr != nil {
			errs[c.event] = m.explain(cmdErr)
		}
	}
	return unknown
}

// isReply says whether err is an answer of the server rather than a failure to get one.
func isReply(err error) bool {
	var r goredis.Error
	return errors.As(err, &r)
}

// explain adds what to do to errors that people cause.
func (m *Model) explain(err error) error {
	hint := ""
	switch {
	case goredis.HasErrorPrefix(err, "WRONGTYPE"):
		hint = ": another program uses this model's keys; give the model a prefix of its own"
	case goredis.HasErrorPrefix(err, "OOM"):
		hint = ": raise maxmemory; an eviction policy would silently remove rows"
	case goredis.HasErrorPrefix(err, "READONLY"):
		hint = ": the url leads to a replica"
	case goredis.HasErrorPrefix(err, "CROSSSLOT"):
		hint = ": the url leads to a cluster; set cluster"
	}
	return fmt.Errorf("redis read model %s: %w%s", m.cfg.Name, err, hint)
}

// truncate raises the floor of the event's origin in every slice, then removes what lies below it. In that order, so
// that nothing older slips in between; repeated after a failure it goes on.
func (m *Model) truncate(ctx context.Context, e *cqrs.Event) error {
	version := e.StoredVersion()
	for n := range m.cfg.Slices {
		if err := m.truncateSlice(ctx, m.slice(n), e.Origin(), version); err != nil {
			return fmt.Errorf("truncate %s at %d: %w", e.Origin(), version, err)
		}
	}
	return nil
}

func (m *Model) truncateSlice(ctx context.Context, s slice, origin string, version lsn.Version) error {
	errs := make([]error, 1)
	m.run(ctx, []call{{script: raise, keys: []string{s.floors}, args: []any{origin, version.Digits()}}}, errs)
	if errs[0] != nil {
		return errs[0]
	}
	var cursor uint64
	for {
		page, next, err := m.scanVersions(ctx, s, cursor)
		if err != nil {
			return m.explain(err)
		}
		var batch []call
		for i := 0; i+1 < len(page); i += 2 {
			id, state := page[i], page[i+1]
			if len(state) < 20 || state[:19] >= version.Digits() || state[20:] != origin {
				continue
			}
			batch = append(batch, call{script: purge, keys: []string{s.row + id, s.index, s.versions}, args: []any{id, version.Digits(), origin}})
		}
		if m.run(ctx, batch, errs); errs[0] != nil {
			return errs[0]
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

func (m *Model) scanVersions(ctx context.Context, s slice, cursor uint64) ([]string, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	return m.client.HScan(ctx, s.versions, cursor, "", pipelineCalls).Result()
}
