package config

import (
	"github.com/tidemarkdb/tidemark/internal/backend"
	"github.com/tidemarkdb/tidemark/internal/loop"
)

// Backend is how the servers are reached. Its shards are in the order of the shard map. The error is that of a file.
func (c *Config) Backend() (backend.Config, error) {
	if err := c.ServerFiles(); err != nil {
		return backend.Config{}, err
	}
	db := c.Database
	out := backend.Config{
		Database: db.ServerName, User: db.User, Password: db.Password.Reveal(),
		SSLMode: string(db.TLS), SSLRootCert: c.path(db.CA), SSLCert: c.path(db.Cert), SSLKey: c.path(db.Key),
		Mode: backend.Mode(c.Pool.Mode), PoolSize: c.Pool.Size, MinIdle: c.Pool.MinIdle, Budget: c.Pool.Budget,
		ReserveSize: c.Pool.ReserveSize, ReserveTimeout: c.Pool.ReserveTimeout, CheckDelay: c.Pool.CheckDelay, MaxConnections: db.MaxConnections,
		AcquireTimeout: c.Pool.AcquireTimeout, ConnectTimeout: c.Pool.ConnectTimeout,
		IdleTime: c.Pool.IdleTimeout, Lifetime: c.Pool.Lifetime, HealthInterval: c.Pool.HealthInterval,
	}
	if out.CheckDelay == 0 {
		out.CheckDelay = -1
	}
	out.Users = map[string]backend.UserConfig{}
	for _, u := range c.Users {
		out.Users[u.Name] = backend.UserConfig{Mode: backend.Mode(u.PoolMode), PoolSize: u.PoolSize, MaxConnections: u.MaxConnections}
	}
	roles := map[Role]backend.Role{AnyRole: backend.RoleAuto, PrimaryRole: backend.RolePrimary, ReplicaRole: backend.RoleReplica}
	for _, s := range c.Shards {
		shard := backend.ShardConfig{Name: s.Name}
		for _, e := range s.Servers() {
			shard.Endpoints = append(shard.Endpoints, backend.EndpointConfig{Host: e.Host, Port: e.Port, Role: roles[e.Role], Region: e.Region, Weight: e.Weight})
		}
		out.Shards = append(out.Shards, shard)
	}
	return out, nil
}

// Loop is how sessions are run.
func (c *Config) Loop() loop.Config {
	return loop.Config{Engine: string(c.Engine), Epoll: loop.EpollConfig{Loops: c.Loops, NoUring: !c.Uring}}
}
