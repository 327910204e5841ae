package elastic

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// maxResponse bounds one response in bytes; pages are far smaller.
const maxResponse = 512 << 20

// do sends one request under the configured timeout and reads the whole response. A status of 300 and more is an *Error.
func (m *Model) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	return m.send(ctx, method, path, "application/json", body)
}

func (m *Model) send(ctx context.Context, method, path, contentType string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, path, r)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := m.client.Perform(req)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(io.LimitReader(res.Body, maxResponse+1))
	if closeErr := res.Body.Close(); err == nil {
		err = closeErr
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("read response: %w", err)
	case len(got) > maxResponse:
		return nil, fmt.Errorf("response of more than %d bytes", maxResponse)
	case res.StatusCode >= 300:
		return nil, parseError(res.StatusCode, got)
	}
	return got, nil
}

// Error is Elasticsearch's answer to a request or to one item of a bulk that it did not carry out.
type Error struct {
	Status int    // HTTP
	Type   string // such as index_not_found_exception
	Reason string // with the reasons behind it
}

func (e *Error) Error() string {
	if e.Type == "" {
		return fmt.Sprintf("status %d: %s", e.Status, e.Reason)
	}
	return fmt.Sprintf("%s (status %d): %s", e.Type, e.Status, e.Reason)
}

// cause is an error object of the REST API.
type cause struct {
	Type     string  `json:"type"`
	Reason   string  `json:"reason"`
	CausedBy *cause  `json:"caused_by"`
	Root     []cause `json:"root_cause"`
}

func (c cause) err(status int) *Error {
	e := &Error{Status: status, Type: c.Type, Reason: c.Reason}
	for _, r := range c.Root {
		if r.Reason != e.Reason {
			e.Reason += ": " + r.Reason
		}
	}
	for by := c.CausedBy; by != nil; by = by.CausedBy {
		e.Reason += ": " + by.Reason
	}
	const most = 2000
	if len(e.Reason) > most {
		e.Reason = e.Reason[:most] + "..."
	}
	return e
}

func parseError(status int, body []byte) *Error {
	var res struct {
		Error json.RawMessage `json:"error"`
	}
	var c cause
	if json.Unmarshal(body, &res) == nil && json.Unmarshal(res.Error, &c) == nil && c.Type != "" {
		return c.err(status)
	}
	const most = 500
	if len(body) > most {
		body = body[:most]
	}
	return &Error{Status: status, Reason: string(bytes.TrimSpace(body))}
}

// shards is the part of a response that says on how many shards it rests.
type shards struct {
	Total    int `json:"total"`
	Failed   int `json:"failed"`
	Failures []struct {
		Reason cause `json:"reason"`
	} `json:"failures"`
}

// whole is nil when no shard failed: an answer from some of the shards is no answer.
func (s shards) whole() error {
	if s.Failed == 0 {
		return nil
	}
	reason := ""
	if len(s.Failures) > 0 {
		reason = ": " + s.Failures[0].Reason.err(0).Reason
	}
	return fmt.Errorf("%d of %d shards failed%s", s.Failed, s.Total, reason)
}
