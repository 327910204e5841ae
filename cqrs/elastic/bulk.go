package elastic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/tidemarkdb/tidemark/internal/lsn"
)

// item is one document of a bulk request.
type item struct {
	id       string
	version  lsn.Version
	atLeast  bool // also over a document of the same version
	document []byte
	event    int // whose error this item's error is
}

const itemOverhead = 100 // bytes of an action line without the id

func (it item) size() int64 { return int64(len(it.document) + len(it.id) + itemOverhead) }

// bulk gathers items until a request is full.
type bulk struct {
	items []item
	bytes int64
}

func (b *bulk) add(it item) {
	b.items = append(b.items, it)
	b.bytes += it.size()
}

// run writes items, in order, and files their errors. When the request as a whole is refused for its content, its
// halves are tried, down to the one document that is at fault.
func (m *Model) run(ctx context.Context, items []item, errs []error) {
	if len(items) == 0 {
		return
	}
	results, err := m.bulk(ctx, items)
	switch {
	case err == nil:
		for i, it := range items {
			if results[i] != nil {
				errs[it.event] = m.verdict(it.id, results[i])
			}
		}
	case isTooMuch(err) && len(items) > 1:
		m.run(ctx, items[:len(items)/2], errs)
		m.run(ctx, items[len(items)/2:], errs)
	case isTooMuch(err):
		var e *Error
		errors.As(err, &e)
		errs[items[0].event] = m.verdict(items[0].id, e)
	default:
		for _, it := range items {
			errs[it.event] = fmt.Errorf("elasticsearch read model %s: bulk: %w", m.cfg.Name, err)
		}
	}
}

// bulk sends one request; results has an error, or nil, for each item. Documents that it acknowledges are in the
// translog of the primary shard (fsync, unless index.translog.durability says otherwise) and readable by id.
func (m *Model) bulk(ctx context.Context, items []item) (results []*Error, err error) {
	var body []byte
	for _, it := range items {
		body = append(body, `{"index":{"_id":`...)
		body = appendString(body, it.id)
		body = append(body, `,"version_type":"`...)
		if it.atLeast {
			body = append(body, "external_gte"...)
		} else {
			body = append(body, "external"...)
		}
		body = append(body, `","version":`...)
		body = strconv.AppendUint(body, uint64(it.version), 10)
		body = append(body, "}}\n"...)
		body = append(body, it.document...)
		body = append(body, '\n')
	}
	// The alias must exist: an index that someone deleted would come back with guessed types otherwise.
	got, err := m.send(ctx, http.MethodPost, "/"+m.write()+"/_bulk?require_alias=true&filter_path=errors,items.index.status,items.index.error",
		"application/x-ndjson", body)
	if err != nil {
		return nil, err
	}
	var res struct {
		Errors *bool `json:"errors"`
		Items  []struct {
			Index struct {
				Status int    `json:"status"`
				Error  *cause `json:"error"`
			} `json:"index"`
		} `json:"items"`
	}
	if err := json.Unmarshal(got, &res); err != nil {
		return nil, err
	}
	if res.Errors == nil || len(res.Items) != len(items) {
		return nil, fmt.Errorf("response has %d items for %d documents", len(res.Items), len(items))
	}
	results = make([]*Error, len(items))
	for i, r := range res.Items {
		switch {
		case r.Index.Error != nil:
			results[i] = r.Index.Error.err(r.Index.Status)
		case r.Index.Status < 200 || r.Index.Status > 299:
			results[i] = &Error{Status: r.Index.Status, Reason: "no reason given"}
		}
	}
	return results, nil
}
