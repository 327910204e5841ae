package localstack

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/segmentio/kafka-go"
)

// The functions below take one look at a service, wherever it runs, and return nil when it is ready for work.

// PostgresAnswers looks whether the server behind dsn takes connections and, as a standby, streams.
func PostgresAnswers(ctx context.Context, dsn string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	var ok bool
	err = conn.QueryRow(ctx, `SELECT NOT pg_is_in_recovery() OR EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')`).Scan(&ok)
	if err == nil && !ok {
		err = errors.New("the replica does not stream")
	}
	return errors.Join(err, conn.Close(ctx))
}

// KafkaAnswers looks whether the broker at host:port lists itself, which it does once the controller has unfenced it.
func KafkaAnswers(ctx context.Context, broker string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", broker)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return errors.New("it does not listen")
	}
	if err != nil {
		return err
	}
	_ = conn.Close() // only a look
	transport := &kafka.Transport{DialTimeout: 500 * time.Millisecond}
	defer transport.CloseIdleConnections()
	meta, err := (&kafka.Client{Addr: kafka.TCP(broker), Transport: transport}).Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return err
	}
	if len(meta.Brokers) != 1 {
		return fmt.Errorf("it lists %d brokers", len(meta.Brokers))
	}
	return nil
}

// ElasticAnswers looks whether the cluster at url has a master and is not red.
func ElasticAnswers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/_cluster/health", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	var health struct {
		Status string `json:"status"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&health); err != nil {
		return fmt.Errorf("cluster health: %s: %w", resp.Status, err)
	}
	if resp.StatusCode != http.StatusOK || health.Status == "red" || health.Status == "" {
		return fmt.Errorf("cluster health: %s, status %q", resp.Status, health.Status)
	}
	return nil
}

// RedisAnswers looks whether PING gets PONG at host:port, which it does not while data is being loaded.
func RedisAnswers(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // only a look
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if line = strings.TrimSpace(line); line != "+PONG" {
		return fmt.Errorf("PING: %s", line)
	}
	return nil
}
