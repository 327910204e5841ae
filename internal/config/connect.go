package config

import (
	"path/filepath"
	"strconv"
	"strings"
)

// ConnString is libpq's keyword form of a login to the first of the servers that answers. It holds the password: never log it.
func (c *Config) ConnString(servers ...Endpoint) string {
	var hosts, ports []string
	for _, e := range servers {
		hosts, ports = append(hosts, e.Host), append(ports, strconv.Itoa(e.Port))
	}
	db := c.Database
	var b strings.Builder
	set := func(key, value string) {
		if value == "" {
			return
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(key + "='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'")
	}
	set("host", strings.Join(hosts, ","))
	set("port", strings.Join(ports, ","))
	set("dbname", db.ServerName)
	set("user", db.User)
	set("password", db.Password.Reveal())
	set("sslmode", string(db.TLS))
	set("sslrootcert", c.path(db.CA))
	set("sslcert", c.path(db.Cert))
	set("sslkey", c.path(db.Key))
	set("connect_timeout", strconv.Itoa(max(1, int(c.Pool.ConnectTimeout.Seconds()))))
	return b.String()
}

// PrimaryConnString logs in to whichever of a shard's servers takes writes.
func (c *Config) PrimaryConnString(s Shard) string {
	return c.ConnString(s.Servers()...) + " target_session_attrs='read-write'"
}

// HomeServers are the servers of the default shard.
func (c *Config) HomeServers() []Endpoint {
	for _, s := range c.Shards {
		if s.Name == c.Sharding.DefaultShard {
			return s.Servers()
		}
	}
	return nil
}

// AuthConnString logs in to the first server of the default shard that answers, as the role that runs auth.query.
func (c *Config) AuthConnString() string {
	as := *c
	if c.Auth.User != "" {
		as.Database.User, as.Database.Password = c.Auth.User, c.Auth.Password
	}
	return as.ConnString(c.HomeServers()...)
}

// path makes a path of the file absolute: relative ones are relative to the file. Empty stays empty.
func (c *Config) path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(filepath.Dir(c.File), p)
}
