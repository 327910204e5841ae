package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"

	"github.com/tidemarkdb/tidemark/internal/config"
)

// storeProbes has one probe each for Kafka, Elasticsearch and Redis, as far as they are configured.
func storeProbes(c *config.Config) []probe {
	var probes []probe
	if len(c.Kafka.Brokers) > 0 {
		probes = append(probes, probe{name: "Kafka " + strings.Join(c.Kafka.Brokers, ","), run: func(ctx context.Context) (string, error) { return probeKafka(ctx, c.Kafka) }})
	}
	for _, address := range c.Elasticsearch.Addresses {
		probes = append(probes, probe{name: "Elasticsearch " + address, run: func(ctx context.Context) (string, error) { return probeElasticsearch(ctx, c.Elasticsearch, address) }})
	}
	if c.Redis.Address != "" {
		probes = append(probes, probe{name: "Redis " + c.Redis.Address, run: func(ctx context.Context) (string, error) { return probeRedis(ctx, c.Redis) }})
	}
	return probes
}

func probeKafka(ctx context.Context, k config.Kafka) (string, error) {
	transport := &kafka.Transport{ClientID: "tidemark-check"}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(k.Brokers...), Transport: transport}
	meta, err := client.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return "", fmt.Errorf("ask for the brokers: %w", err)
	}
	if n := len(meta.Brokers); n < k.ReplicationFactor {
		return "", advice{
			fmt.Errorf("there are %s, and kafka.replication_factor is %d", counted(n, "broker"), k.ReplicationFactor),
			"start more brokers, or lower kafka.replication_factor",
		}
	}
	topics := 0
	for _, t := range meta.Topics {
		if strings.HasPrefix(t.Name, k.Prefix) {
			topics++
		}
	}
	return fmt.Sprintf("%s, %s under %s*", counted(len(meta.Brokers), "broker"), counted(topics, "topic"), k.Prefix), nil
}

// probeElasticsearch asks for the cluster's health, which every distribution answers.
func probeElasticsearch(ctx context.Context, e config.Elasticsearch, address string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(address, "/")+"/_cluster/health", nil)
	if err != nil {
		return "", err
	}
	switch {
	case !e.APIKey.Empty():
		req.Header.Set("Authorization", "ApiKey "+e.APIKey.Reveal())
	case e.User != "":
		req.SetBasicAuth(e.User, e.Password.Reveal())
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask for the cluster's health: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", fmt.Errorf("ask for the cluster's health: %w", err)
	}
	switch {
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return "", advice{fmt.Errorf("it refused the login (%s)", resp.Status), "check elasticsearch.user and password, or api_key"}
	case resp.Header.Get("X-Elastic-Product") != "Elasticsearch":
		return "", fmt.Errorf("what answers there (%s) does not say that it is Elasticsearch", resp.Status)
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("it answered %s", resp.Status)
	}
	var health struct {
		Status string `json:"status"`
		Name   string `json:"cluster_name"`
		Nodes  int    `json:"number_of_nodes"`
	}
	if err := json.Unmarshal(body, &health); err != nil {
		return "", fmt.Errorf("read the cluster's health: %w", err)
	}
	if health.Status == "red" {
		return "", fmt.Errorf("the cluster %s is red: some primary shards are not assigned", health.Name)
	}
	return fmt.Sprintf("cluster %s is %s, %s", health.Name, health.Status, counted(health.Nodes, "node")), nil
}

// quietRedis drops what go-redis logs by itself: its errors are returned too.
type quietRedis struct{}

func (quietRedis) Printf(context.Context, string, ...any) {}

func init() { redis.SetLogger(quietRedis{}) }

func probeRedis(ctx context.Context, r config.Redis) (string, error) {
	client := redis.NewClient(&redis.Options{Addr: r.Address, Username: r.User, Password: r.Password.Reveal(), DB: r.Database, PoolSize: 1, MaxRetries: -1})
	defer func() { _ = client.Close() }()
	text, err := client.Info(ctx).Result()
	switch {
	case err != nil && (strings.HasPrefix(err.Error(), "NOAUTH") || strings.HasPrefix(err.Error(), "WRONGPASS")):
		return "", advice{fmt.Errorf("it refused the login: %w", err), "check redis.user and redis.password"}
	case err != nil:
		return "", fmt.Errorf("ask the server: %w", err)
	}
	return redisFindings(text)
}

// redisFindings reads INFO. A read model has no other copy of what is applied to it: what the server drops is missing from then on, and nothing
// brings it back until the row changes.
func redisFindings(text string) (string, error) {
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	if policy := info["maxmemory_policy"]; strings.HasPrefix(policy, "allkeys-") && info["maxmemory"] != "0" {
		return "", advice{fmt.Errorf("its maxmemory_policy is %s: it would silently remove rows of read models", policy), "CONFIG SET maxmemory-policy noeviction"}
	}
	detail := "it answers"
	if v := info["redis_version"]; v != "" {
		detail = "version " + v
	}
	if info["aof_enabled"] == "0" {
		detail += "; it appends to no file, so that a crash takes rows out of read models: CONFIG SET appendonly yes"
	}
	return detail, nil
}
