// Package otlp brings OpenTelemetry's spans to a collector: OTLP over HTTP in protobuf
// (https://opentelemetry.io/docs/specs/otlp/#otlphttp). The SDK's own client for that links gRPC, with which the program
// has 76 MB instead of 46.
package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Client is what the SDK's exporter sends by, an otlptrace.Client.
type Client struct {
	cfg  Config
	http *http.Client

	mu  sync.Mutex // guards zip and buf
	zip *gzip.Writer
	buf bytes.Buffer
}

// Config says where spans go.
type Config struct {
	URL     string
	Header  http.Header
	TLS     *tls.Config   // nil: as the system does
	Timeout time.Duration // of a batch, with all attempts
	Agent   string        // User-Agent
}

// maxAnswer bounds what is read of a collector's answer, in bytes.
const maxAnswer = 64 << 10

// New makes a client. It connects to nothing.
func New(cfg Config) *Client {
	t := http.DefaultTransport.(*http.Transport).Clone() // a proxy of the environment is used
	t.TLSClientConfig, t.MaxIdleConns, t.MaxConnsPerHost = cfg.TLS, 1, 1
	t.ForceAttemptHTTP2 = true
	return &Client{cfg: cfg, http: &http.Client{Transport: t}, zip: gzip.NewWriter(nil)}
}

// Start implements otlptrace.Client.
func (c *Client) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client.
func (c *Client) Stop(context.Context) error {
	c.http.CloseIdleConnections()
	return nil
}

// UploadTraces implements otlptrace.Client. It tries again what the collector says is worth it, and nothing else.
func (c *Client) UploadTraces(ctx context.Context, spans []*trace.ResourceSpans) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	// The request's message has the same one field as this one.
	b, err := proto.Marshal(&trace.TracesData{ResourceSpans: spans})
	if err != nil {
		return err
	}
	c.buf.Reset()
	c.zip.Reset(&c.buf)
	if _, err := c.zip.Write(b); err != nil {
		return err
	}
	if err := c.zip.Close(); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, c.cfg.Timeout)
	defer stop()
	_, err = backoff.Retry(ctx, func() (struct{}, error) { return struct{}{}, c.post(ctx) }, backoff.WithMaxElapsedTime(c.cfg.Timeout))
	return err
}

// post is one attempt.
func (c *Client) post(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.URL, bytes.NewReader(c.buf.Bytes()))
	if err != nil {
		return backoff.Permanent(err)
	}
	for name, values := range c.cfg.Header {
		r.Header[name] = values
	}
	r.Header.Set("Content-Type", "application/x-protobuf")
	r.Header.Set("Content-Encoding", "gzip")
	r.Header.Set("User-Agent", c.cfg.Agent)
	resp, err := c.http.Do(r)
	if err != nil {
		return backoff.Permanent(err)
	}
	defer func() { _ = resp.Body.Close() }() // what matters of it has been read
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case resp.StatusCode/100 == 2 && err == nil:
		if err := rejected(text); err != nil {
			return backoff.Permanent(err)
		}
		return nil
	case resp.StatusCode/100 != 2:
		err = fmt.Errorf("the collector answers %s: %.200q", resp.Status, strings.TrimSpace(string(text)))
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return err
	}
	return backoff.Permanent(err)
}

// rejected is an error where the collector has taken the request, but not all spans of it: partial_success (field 1) with
// rejected_spans (1) and error_message (2).
func rejected(answer []byte) error {
	partial, _ := protoField(answer, 1)
	text, _ := protoField(partial, 2)
	if _, n := protoField(partial, 1); n > 0 {
		return fmt.Errorf("the collector has rejected %d spans: %.200q", n, text)
	}
	return nil
}

// protoField finds a field of a message, as bytes or as a number; what is no message has none.
func protoField(b []byte, number protowire.Number) (text []byte, n uint64) {
	for len(b) > 0 {
		field, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return nil, 0
		}
		b = b[size:]
		switch {
		case field == number && kind == protowire.BytesType:
			text, _ = protowire.ConsumeBytes(b)
			return text, 0
		case field == number && kind == protowire.VarintType:
			n, _ = protowire.ConsumeVarint(b)
			return nil, n
		}
		if size = protowire.ConsumeFieldValue(field, kind, b); size < 0 {
			return nil, 0
		}
		b = b[size:]
	}
	return nil, 0
}
