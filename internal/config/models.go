package config

import (
	"net/url"
	"os"
	"strconv"

	"github.com/tidemarkdb/tidemark/cqrs"
	"github.com/tidemarkdb/tidemark/cqrs/elastic"
	"github.com/tidemarkdb/tidemark/cqrs/redis"
)

// ElasticModel is a view that is kept in Elasticsearch, with the columns of its table.
func (c *Config) ElasticModel(v View, columns []cqrs.Column) (elastic.Config, error) {
	e := c.Elasticsearch
	out := elastic.Config{
		Name: v.Name, Index: v.Elastic.Index, Addresses: e.Addresses, Username: e.User, Password: e.Password.Reveal(), APIKey: e.APIKey.Reveal(),
		Columns: columns, Mapping: v.Elastic.Mapping, Settings: v.Elastic.Settings, Shards: v.Elastic.Shards, Replicas: v.Elastic.Replicas, Refresh: v.Elastic.Refresh,
	}
	if e.CA != "" {
		pem, err := os.ReadFile(c.path(e.CA))
		if err != nil {
			return out, c.wrong("elasticsearch.ca", err)
		}
		out.CACert = pem
	}
	return out, nil
}

// RedisModel is a view that is kept in Redis, with the columns of its table.
func (c *Config) RedisModel(v View, columns []cqrs.Column) redis.Config {
	r := c.Redis
	return redis.Config{
		Name: v.Name, URL: c.redisURL(), Cluster: r.Cluster, Username: r.User, Password: r.Password.Reveal(),
		Prefix: v.Redis.Prefix, Mode: redis.Mode(v.Redis.As), Slices: v.Redis.Slices, Columns: columns, Timeout: r.Timeout,
	}
}

// redisURL has no password in it, for the URL of a client ends up in messages.
func (c *Config) redisURL() string {
	u := url.URL{Scheme: "redis", Host: c.Redis.Address}
	if c.Redis.TLS {
		u.Scheme = "rediss"
	}
	if !c.Redis.Cluster {
		u.Path = "/" + strconv.Itoa(c.Redis.Database)
	}
	return u.String()
}

// ViewShards are the shards that feed a view; nil stands for all of them.
func (c *Config) ViewShards(v View) []string {
	if home := c.home(v.From); home != "" {
		return []string{home}
	}
	return nil
}
