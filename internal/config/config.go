// Package config reads Tidemark's one YAML file. It is the only package that reads files: every other takes a small struct,
// and the conversions to those are here too (proxy.go, backend.go, capture.go, ...).
//
// A Config that Load returns is complete, with every default filled in, and consistent. All problems of a file are found in one
// run, each with its line, column and key, and with what was expected.
package config

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"go.yaml.in/yaml/v4"
)

// maxFileSize bounds what Load reads: a configuration is written by people.
const maxFileSize = 4 << 20

// Config is the whole file. docs/config.md, generated from the tables of fields in this package, describes every key.
type Config struct {
	File string // where it was read from

	// Warn hears of what goes wrong with files that are read later, as certificates that are renewed; nil: nobody does.
	Warn func(error) `json:"-" yaml:"-"`

	Listen       string
	UnixSocket   UnixSocket
	HTTP         string // empty: no HTTP server
	Region       string // where this process runs; empty: no preference
	Engine       Engine
	Loops        int // 0: by the number of processors
	Uring        bool
	DrainTimeout time.Duration
	Clients      Clients
	TLS          *TLS // nil: no TLS for clients

	Database      Database
	Users         []User
	Auth          Auth
	Shards        []Shard
	Sharding      Sharding
	Pool          Pool
	Consistency   Consistency
	Kafka         Kafka
	Capture       Capture
	Views         []View
	Elasticsearch Elasticsearch
	Redis         Redis
	Log           Log
	Admin         Admin
	Tracing       *Tracing // nil: no traces

	values map[string]*recorded // every scalar, by its path
}

// Engine is how client sessions are run.
type Engine string

// The engines. Auto is Epoll on Linux and Goroutines elsewhere.
const (
	Auto       Engine = "auto"
	Epoll      Engine = "epoll"
	Goroutines Engine = "goroutines"
)

func (c *Config) fields() []field {
	return []field{
		{key: "listen", into: address(&c.Listen), def: "127.0.0.1:6432", doc: "Where PostgreSQL clients connect. An empty host, as in `:6432`, listens on every interface."},
		{key: "unix_socket", into: section(c.UnixSocket.fields), doc: "Where clients of the same machine connect over a Unix-domain socket, beside `listen`. Where systemd or an earlier process hands over sockets for clients, these are served in place of both."},
		{key: "http", into: optionalAddress(&c.HTTP), def: "127.0.0.1:9632", doc: "Where `/health`, `/ready` and `/metrics` are served. A projector beside a proxy on the same machine needs another one; see `tidemark projector --http`."},
		{key: "region", into: text(&c.Region), doc: "The region this process runs in. Reads prefer endpoints of the same region."},
		{key: "engine", into: choice(&c.Engine, Auto, Epoll, Goroutines), def: "auto", doc: "How sessions run: coroutines on epoll loops (Linux) or a goroutine each. `auto` takes epoll where there is one."},
		{key: "io_uring", into: boolean(&c.Uring), def: "true", doc: "Whether event loops send several messages by one system call, where the system lets this process use io_uring (many containers may not). It saves a tenth of the CPU time."},
		{key: "loops", into: integer(&c.Loops, 0, 1024), def: "0", doc: "How many event loops the epoll engine has; 0 chooses by the number of processors."},
		{key: "drain_timeout", into: duration(&c.DrainTimeout), def: "10s", doc: "How long SIGTERM lets running transactions finish before their connections are closed."},
		{key: "clients", into: section(c.Clients.fields), doc: "Limits on clients."},
		{key: "tls", into: optional(&c.TLS, (*TLS).fields), doc: "TLS for clients. Without this section clients that ask for TLS are told that there is none."},
		{key: "database", into: section(c.Database.fields), required: true, doc: "The database that clients see, and how the servers behind it are logged in to."},
		{key: "users", into: list(&c.Users, (*User).fields), doc: "Who may connect. Required, unless `auth.query` finds users."},
		{key: "auth", into: section(c.Auth.fields), doc: "How clients prove who they are. Left out, by SCRAM-SHA-256."},
		{key: "shards", into: list(&c.Shards, (*Shard).fields), required: true, doc: "The PostgreSQL clusters, in order. The order matters where `buckets` is left out: buckets are then split evenly in this order, so a shard added later must not be put in front."},
		{key: "sharding", into: section(c.Sharding.fields), doc: "How tables are spread over the shards."},
		{key: "pool", into: section(c.Pool.fields), doc: "Server connections, shared by all clients, each lent for one transaction."},
		{key: "consistency", into: section(c.Consistency.fields), doc: "What a session may read after its own writes. Each session can change it, as in `SET tidemark.consistency = 'eventual'`."},
		{key: "kafka", into: section(c.Kafka.fields), doc: "The log of changes. Needed when there are views."},
		{key: "capture", into: section(c.Capture.fields), doc: "Which changes are taken from the shards to Kafka."},
		{key: "views", into: named(&c.Views, viewValue), doc: "Read models by name. Each is queried through the proxy as a table of that name."},
		{key: "elasticsearch", into: section(c.Elasticsearch.fields), doc: "The Elasticsearch cluster that holds the views declared with `elastic`."},
		{key: "redis", into: section(c.Redis.fields), doc: "The Redis server that holds the views declared with `redis`."},
		{key: "log", into: section(c.Log.fields), doc: "What is written to standard error."},
		{key: "admin", into: section(c.Admin.fields), doc: "The admin database, `tidemark`: its users log in as all others do, with `dbname=tidemark`."},
		{key: "tracing", into: optional(&c.Tracing, (*Tracing).fields), doc: "Where OpenTelemetry traces go, see [tracing.md](tracing.md). Without this section there are none."},
	}
}

// Load reads and validates a file. Its error is a Problems when the file could be read.
func Load(path string) (*Config, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read configuration: %w", err)
	case info.Size() > maxFileSize:
		return nil, fmt.Errorf("read configuration: %s has %d bytes, more than %d", path, info.Size(), maxFileSize)
	}
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, src, os.LookupEnv)
}

// Parse validates src, which came from the named file, with environment variables looked up by env. Its error is a Problems.
func Parse(file string, src []byte, env func(name string) (string, bool)) (*Config, error) {
	d := &decoder{file: file, env: env, at: map[string]*yaml.Node{}}
	root := d.document(bytes.NewReader(src))
	if len(d.problems) > 0 {
		return nil, d.problems
	}
	c := &Config{File: file}
	if root != nil {
		d.at[""] = root
	}
	d.section(root, "", c.fields())
	c.values = d.values
	d.check(c)
	if len(d.problems) > 0 {
		return nil, d.problems.sorted()
	}
	return c, nil
}
