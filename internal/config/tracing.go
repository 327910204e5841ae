package config

import (
	"crypto/tls"
	"errors"
	"net/url"
	"reflect"
	"strconv"
	"time"
)

// Tracing is where traces go, and of what there are any unasked.
type Tracing struct {
	Endpoint  string
	Headers   []Header
	CA        string // file; empty: the system's authorities
	Timeout   time.Duration
	Service   string
	Sample    float64
	QueryText bool
}

// Header goes with every request to a collector.
type Header struct {
	Name  string
	Value Secret
}

func (t *Tracing) fields() []field {
	return []field{
		{key: "endpoint", into: collector(&t.Endpoint), required: true, doc: "The collector's URL, which takes OTLP over HTTP in protobuf: `http://127.0.0.1:4318`. One without a path gets `/v1/traces`."},
		{key: "headers", into: named(&t.Headers, func(h *Header, name string) value { h.Name = name; return secret(&h.Value) }), doc: "HTTP headers by name, as for authentication."},
		{key: "ca", into: text(&t.CA), doc: "File with the authorities, PEM, that sign the collector's certificate; the system's when left out."},
		{key: "timeout", into: period(&t.Timeout), def: "10s", doc: "How long sending one batch may take, attempts after a failure included. Spans that cannot be sent are dropped."},
		{key: "service", into: text(&t.Service), def: "tidemark", doc: "`service.name` of the spans."},
		{key: "sample", into: share(&t.Sample), def: "0", doc: "The share of transactions, and of requests outside of one, that are traced without anybody asking for it, from 0 to 1. Those of clients that send a `traceparent` are not drawn: its flag decides."},
		{key: "query_text", into: boolean(&t.QueryText), def: "false", doc: "Whether spans carry the statements: without their literals and comments, cut after 2048 bytes."},
	}
}

// collector is the URL of an OTLP endpoint.
func collector(into *string) value {
	return value{kind: "URL", want: "a URL such as http://127.0.0.1:4318", secret: true, text: func(s string) error {
		u, err := url.Parse(s)
		switch {
		case err != nil, u.Host == "":
			return errors.New("it is not a URL with a host")
		case u.Scheme != "http" && u.Scheme != "https":
			return errors.New("its scheme is neither http nor https")
		case u.User != nil:
			return errors.New("it holds a user or a password; headers are the place for them")
		case u.Path == "" || u.Path == "/":
			u.Path = "/v1/traces"
		}
		*into = u.String()
		return nil
	}}
}

// share is a number from 0 to 1.
func share(into *float64) value {
	return value{kind: "number", want: "a number from 0 to 1, such as 0.01", text: func(s string) error {
		x, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return errors.New("it is not a number")
		}
		if !(x >= 0 && x <= 1) {
			return errors.New("it is out of range")
		}
		*into = x
		return nil
	}}
}

// TracingTLS is how the collector's certificate is verified; nil: as the system does.
func (c *Config) TracingTLS() (*tls.Config, error) {
	if c.Tracing == nil || c.Tracing.CA == "" {
		return nil, nil
	}
	pool, err := c.authorities("tracing.ca", c.Tracing.CA)
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// SameCollector says whether spans of t and other go to the same place in the same way.
func (t *Tracing) SameCollector(other *Tracing) bool {
	if t == nil || other == nil {
		return t == other
	}
	a, b := *t, *other
	a.Sample, a.QueryText = b.Sample, b.QueryText
	return reflect.DeepEqual(a, b)
}

func (d *decoder) checkTracing(c *Config) {
	if c.Tracing == nil {
		return
	}
	for _, h := range c.Tracing.Headers {
		if !headerName(h.Name) {
			d.addAt("tracing.headers."+h.Name, "it is not the name of an HTTP header")
		}
	}
}

// headerName says whether a name is a token as RFC 9110 has it.
func headerName(s string) bool {
	for i := range len(s) {
		switch b := s[i]; {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9', b == '-', b == '_', b == '.':
		default:
			return false
		}
	}
	return s != ""
}
