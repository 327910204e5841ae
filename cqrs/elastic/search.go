package elastic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"
)

// Page sizes in rows: pages grow or shrink towards Config.PageBytes.
const (
	firstPage = 1000
	maxPage   = 10_000 // index.max_result_window
	minPage   = 10
)

// keepAlive is how long a point in time outlives the last page.
const keepAlive = "2m"

// request is the body of a search.
type request map[string]any

// hit is one document of a result.
type hit struct {
	ID     string            `json:"_id"`
	Source source            `json:"_source"`
	Sort   []json.RawMessage `json:"sort"`
}

type response struct {
	PIT      string `json:"pit_id"`
	TimedOut bool   `json:"timed_out"`
	Shards   shards `json:"_shards"`
	Hits     struct {
		Total struct {
			Value int64 `json:"value"`
		} `json:"total"`
		Hits []hit `json:"hits"`
	} `json:"hits"`
	Aggregations struct {
		Inexact struct {
			Count int64 `json:"doc_count"`
		} `json:"inexact"`
	} `json:"aggregations"`
	bytes int
}

// search runs one request; index is empty when it has a point in time. An answer that is not from every shard, or was
// cut short, is an error.
func (m *Model) search(ctx context.Context, index string, r request) (*response, error) {
	path := "/_search"
	if index != "" {
		path = "/" + index + "/_search?allow_partial_search_results=false"
	} else {
		path += "?allow_partial_search_results=false"
	}
	r = maps.Clone(r)
	r["timeout"] = fmt.Sprintf("%dms", m.cfg.Timeout.Milliseconds())
	if _, ok := r["track_total_hits"]; !ok {
		r["track_total_hits"] = false
	}
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	got, err := m.do(ctx, http.MethodPost, path, body)
	if err != nil {
		return nil, err
	}
	res := &response{bytes: len(got)}
	if err := json.Unmarshal(got, res); err != nil {
		return nil, err
	}
	if err := res.Shards.whole(); err != nil {
		return nil, err
	}
	if res.TimedOut {
		return nil, fmt.Errorf("the search did not end within %s", m.cfg.Timeout)
	}
	return res, nil
}

// pages runs a request to its end over one point in time, so that writes meanwhile neither repeat nor hide rows, and
// gives each page to take. Its memory is one page.
func (m *Model) pages(ctx context.Context, index string, r request, take func(*response) error) error {
	return m.atPoint(ctx, index, func(search func(request) (*response, error)) error { return m.each(search, r, take) })
}

// each pages through a request with a given search.
func (m *Model) each(search func(request) (*response, error), r request, take func(*response) error) error {
	r = maps.Clone(r)
	if r["sort"] == nil {
		r["sort"] = []any{"_shard_doc"}
	}
	for size := firstPage; ; {
		r["size"] = size
		res, err := search(r)
		if err != nil {
			return err
		}
		if err := take(res); err != nil {
			return err
		}
		hits := res.Hits.Hits
		if len(hits) < size {
			return nil
		}
		r["search_after"] = hits[len(hits)-1].Sort
		delete(r, "aggs") // of the whole result, so once
		size = m.nextSize(size, res.bytes)
	}
}

func (m *Model) nextSize(size, bytes int) int {
	perRow := max(bytes/size, 1)
	return min(max(int(m.cfg.PageBytes)/perRow, minPage), maxPage)
}

// atPoint calls f with a search over one point in time, which it opens and closes.
func (m *Model) atPoint(ctx context.Context, index string, f func(search func(request) (*response, error)) error) (err error) {
	body, err := m.do(ctx, http.MethodPost, "/"+index+"/_pit?keep_alive="+keepAlive, nil)
	if err != nil {
		return fmt.Errorf("open point in time: %w", err)
	}
	var point struct {
		ID     string `json:"id"`
		Shards shards `json:"_shards"`
	}
	if err := json.Unmarshal(body, &point); err != nil {
		return fmt.Errorf("open point in time: %w", err)
	}
	defer func() {
		// Also after the caller's deadline; one that is left expires by itself.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		id, _ := json.Marshal(map[string]string{"id": point.ID}) // strings always marshal
		if _, closeErr := m.do(ctx, http.MethodDelete, "/_pit", id); err == nil && closeErr != nil && !isStatus(closeErr, http.StatusNotFound) {
			err = fmt.Errorf("close point in time: %w", closeErr)
		}
	}()
	if err := point.Shards.whole(); err != nil {
		return fmt.Errorf("open point in time: %w", err)
	}
	return f(func(r request) (*response, error) {
		r = maps.Clone(r)
		r["pit"] = map[string]any{"id": point.ID, "keep_alive": keepAlive}
		res, err := m.search(ctx, "", r)
		if err == nil && res.PIT != "" {
			point.ID = res.PIT
		}
		return res, err
	})
}

func isStatus(err error, status int) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == status
}

// got is one document read by id.
type got struct {
	ID      string `json:"_id"`
	Found   bool   `json:"found"`
	Version int64  `json:"_version"`
	Source  source `json:"_source"`
	Error   *cause `json:"error"`
}

// get reads documents by id in real time, in the order of ids.
func (m *Model) get(ctx context.Context, index string, ids []string, params string) ([]got, error) {
	body, err := json.Marshal(map[string]any{"ids": ids})
	if err != nil {
		return nil, err
	}
	b, err := m.do(ctx, http.MethodPost, "/"+index+"/_mget?"+params, body)
	if err != nil {
		return nil, err
	}
	var res struct {
		Docs []got `json:"docs"`
	}
	if err := json.Unmarshal(b, &res); err != nil {
		return nil, err
	}
	if len(res.Docs) != len(ids) {
		return nil, fmt.Errorf("response has %d documents for %d ids", len(res.Docs), len(ids))
	}
	for _, d := range res.Docs {
		if d.Error != nil {
			return nil, d.Error.err(0)
		}
	}
	return res.Docs, nil
}
