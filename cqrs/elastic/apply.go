package elastic

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/internal/lsn"
	"github.com/tidemarkdb/tidemark/replication"
)

// Apply implements cqrs.Projector. Permanent are events that cannot become a document, and documents that
// Elasticsearch refuses as such (status 400, or too large); everything else is transient, a missing index and missing
// rights included, for no event is at fault then.
func (m *Model) Apply(ctx context.Context, events []cqrs.Event) []error {
	errs := make([]error, len(events))
	if err := m.applyInto(ctx, events, errs); err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	for _, err := range errs {
		if err != nil {
			return errs
		}
	}
	return nil
}

func (m *Model) applyInto(ctx context.Context, events []cqrs.Event, errs []error) error {
	if len(events) == 0 {
		return nil
	}
	if err := m.prepareWrite(ctx); err != nil {
		return err
	}
	floors, err := m.floors(ctx, events)
	if err != nil {
		return fmt.Errorf("elasticsearch read model %s: %w", m.cfg.Name, err)
	}
	var b bulk
	flush := func() {
		m.run(ctx, b.items, errs)
		b = bulk{}
	}
	for i := range events {
		e := &events[i]
		origin := e.Origin()
		switch {
		case e.Op.WholeTable():
			flush() // the rows before it, in order
			if errs[i] = m.truncate(ctx, origin, e.StoredVersion()); errs[i] == nil {
				floors[origin] = max(floors[origin], e.StoredVersion())
			}
			continue
		case !e.Last, e.StoredVersion() < floors[origin]:
			continue // something later says it all
		}
		it, err := m.item(e)
		if err != nil {
			errs[i] = err
			continue
		}
		it.event = i
		if len(b.items) > 0 && b.bytes+it.size() > m.cfg.BulkBytes {
			flush()
		}
		b.add(it)
	}
	flush()
	return nil
}

func (m *Model) item(e *cqrs.Event) (item, error) {
	id, err := e.RowID(m.cfg.Columns)
	if err != nil {
		return item{}, err
	}
	it := item{id: id, version: e.StoredVersion()}
	if e.Op == replication.Delete {
		it.document = appendTombstone(nil, id, e.Origin(), it.version)
		return it, nil
	}
	it.document, err = m.appendDocument(nil, id, e)
	return it, err
}

// floorID names the document that keeps an origin's floor. No row has it: a row's id that begins so is a whole hash.
func floorID(origin string) string { return "sha256:floor:" + origin }

// floors reads, for every origin among the events, the version of its last TRUNCATE. It asks each time, in real time:
// another projector may have applied one before this one took over the partition.
func (m *Model) floors(ctx context.Context, events []cqrs.Event) (map[string]lsn.Version, error) {
	floors := map[string]lsn.Version{}
	var ids, origins []string
	for i := range events {
		origin := events[i].Origin()
		if _, ok := floors[origin]; !ok {
			floors[origin] = 0
			ids, origins = append(ids, floorID(origin)), append(origins, origin)
		}
	}
	docs, err := m.get(ctx, m.concrete(), ids, "_source=false")
	if err != nil {
		return nil, fmt.Errorf("read floors: %w", err)
	}
	for i, d := range docs {
		if d.Found {
			floors[origins[i]] = lsn.Version(d.Version)
		}
	}
	return floors, nil
}

// transientStatus says whether an error is of the moment or of the installation, not of a document.
func transientStatus(status int) bool {
	return status != http.StatusBadRequest && status != http.StatusRequestEntityTooLarge
}

// verdict turns an item's error into Apply's.
func (m *Model) verdict(id string, err *Error) error {
	switch {
	case err.Status == http.StatusConflict:
		return nil // as new or newer is there already
	case transientStatus(err.Status):
		return fmt.Errorf("elasticsearch read model %s: document %s: %w", m.cfg.Name, id, err)
	}
	return fmt.Errorf("%w: elasticsearch read model %s refuses document %s: %w", cqrs.ErrPermanent, m.cfg.Name, id, err)
}

// isTooMuch says whether a whole request was refused for its content, so that a part of it may pass.
func isTooMuch(err error) bool {
	var e *Error
	return errors.As(err, &e) && !transientStatus(e.Status)
}
