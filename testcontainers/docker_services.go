package testcontainers

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	tc "github.com/testcontainers/testcontainers-go"
	"golang.org/x/sync/errgroup"

	"github.com/tidemarkdb/tidemark/internal/localstack"
)

// image returns the image of a service: $TIDEMARK_IMAGE_<NAME>, else the official one of the version that localstack pins.
func image(name, official string) string { return cmp.Or(os.Getenv("TIDEMARK_IMAGE_"+name), official) }

// script runs a shell script as the container's process. Images are used for their programs only, not for their entry points, so that
// primary and replica start alike and an image made by hand does as well as an official one.
func script(text string, user string) tc.CustomizeRequestOption {
	return func(r *tc.GenericContainerRequest) error {
		r.Entrypoint = []string{"/bin/sh", "-euc", text}
		r.Cmd = nil
		return tc.WithConfigModifier(func(c *container.Config) { c.User = user })(r)
	}
}

const pgPrimary = `
D=/tmp/pgdata
if [ ! -s $D/PG_VERSION ]; then
	initdb -D $D -U postgres -A trust -E UTF8 --locale=C.UTF-8 --data-checksums --no-sync --no-instructions >/dev/null
	printf 'local all all trust\nhost all all all scram-sha-256\nhost replication all all scram-sha-256\n' > $D/pg_hba.conf
	printf "ALTER ROLE postgres PASSWORD '$PGPASSWORD'\nCREATE ROLE tidemark LOGIN REPLICATION CREATEDB PASSWORD '$PGPASSWORD' IN ROLE pg_monitor\n" |
		postgres --single -D $D -c password_encryption=scram-sha-256 -c wal_level=logical -c exit_on_error=on postgres >/dev/null
fi
`

const pgReplica = `
D=/tmp/pgdata
if [ ! -s $D/PG_VERSION ]; then
	pg_basebackup -h $PRIMARY -U postgres -D $D -X stream -C -S $SLOT -R -c fast
fi
`

// postgres starts a primary, then its replicas.
func (d *docker) postgres(ctx context.Context, shard *Shard) error {
	var err error
	if shard.Primary, err = d.postgresServer(ctx, shard.Name+"-primary", pgPrimary, nil); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for i := range shard.Replicas {
		g.Go(func() error {
			slot := "replica" + strconv.Itoa(i)
			var err error
			shard.Replicas[i], err = d.postgresServer(ctx, shard.Name+"-"+slot, pgReplica, map[string]string{"PRIMARY": shard.Primary.Name(), "SLOT": slot})
			return err
		})
	}
	return g.Wait()
}

func (d *docker) postgresServer(ctx context.Context, name, create string, env map[string]string) (*Server, error) {
	port, err := hostPort()
	if err != nil {
		return nil, err
	}
	s := &Server{Host: d.host, Port: port, User: localstack.Superuser, Password: localstack.Password}
	settings := localstack.Settings()
	settings["listen_addresses"] = "*"
	settings["unix_socket_directories"] = "/tmp"
	settings["cluster_name"] = name
	settings["fsync"] = "off"
	settings["full_page_writes"] = "off"
	maps.Copy(settings, d.spec.Settings)
	start := strings.Builder{}
	start.WriteString(create + "exec postgres -D $D")
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		start.WriteString(" -c '" + key + "=" + strings.ReplaceAll(settings[key], "'", `'\''`) + "'")
	}
	env = maps.Clone(env)
	if env == nil {
		env = map[string]string{}
	}
	env["PGPASSWORD"] = localstack.Password
	version := cmp.Or(d.spec.PostgresVersion, localstack.DefaultPostgresVersion)
	s.Service, err = d.run(ctx, name, image("POSTGRES", "postgres:"+version), 5432, port,
		func(ctx context.Context) error { return localstack.PostgresAnswers(ctx, s.DSN("postgres")) },
		script(start.String(), "postgres"), tc.WithEnv(env),
		// SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for its clients.
		tc.WithConfigModifier(func(c *container.Config) { c.User, c.StopSignal = "postgres", "SIGINT" }))
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (d *docker) kafka(ctx context.Context) (*Kafka, error) {
	port, err := hostPort()
	if err != nil {
		return nil, err
	}
	addr := net.JoinHostPort(d.host, strconv.Itoa(port))
	start := fmt.Sprintf(`
D=/tmp/kafka
J="-Xms64m -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
export CLASSPATH='/opt/kafka/libs/*'
if [ ! -d $D ]; then
	mkdir $D
	cat > $D/server.properties <<'END'
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:9093
listeners=PLAINTEXT://0.0.0.0:9092,CONTROLLER://127.0.0.1:9093
advertised.listeners=PLAINTEXT://%s
log.dirs=/tmp/kafka/log
%sEND
	java $J kafka.tools.StorageTool format -t dGlkZW1hcmstbG9jYWwtMQ -c $D/server.properties
fi
exec java $J kafka.Kafka $D/server.properties`, addr, localstack.KafkaProperties)
	s, err := d.run(ctx, "kafka", image("KAFKA", "apache/kafka:"+localstack.KafkaVersion()), 9092, port,
		func(ctx context.Context) error { return localstack.KafkaAnswers(ctx, addr) }, script(start, ""))
	if err != nil {
		return nil, err
	}
	return &Kafka{Service: s, Brokers: []string{addr}}, nil
}

func (d *docker) elasticsearch(ctx context.Context) (*Elasticsearch, error) {
	port, err := hostPort()
	if err != nil {
		return nil, err
	}
	url := "http://" + net.JoinHostPort(d.host, strconv.Itoa(port))
	start := `exec /usr/share/elasticsearch/bin/elasticsearch -Epath.data=/tmp/data -Epath.logs=/tmp/logs -Enetwork.host=0.0.0.0 ` +
		`-Ediscovery.type=single-node -Expack.security.enabled=false -Ecluster.routing.allocation.disk.threshold_enabled=false`
	s, err := d.run(ctx, "elasticsearch", image("ELASTICSEARCH", "elasticsearch:"+localstack.ElasticsearchVersion()), 9200, port,
		func(ctx context.Context) error { return localstack.ElasticAnswers(ctx, url) },
		script(start, "1000:0"), tc.WithEnv(map[string]string{"ES_JAVA_OPTS": "-Xms256m -Xmx256m -XX:-UseG1GC -XX:+UseSerialGC -XX:TieredStopAtLevel=1"}))
	if err != nil {
		return nil, err
	}
	return &Elasticsearch{Service: s, URL: url}, nil
}

func (d *docker) redis(ctx context.Context) (*Redis, error) {
	port, err := hostPort()
	if err != nil {
		return nil, err
	}
	addr := net.JoinHostPort(d.host, strconv.Itoa(port))
	s, err := d.run(ctx, "redis", image("REDIS", "redis:7"), 6379, port,
		func(ctx context.Context) error { return localstack.RedisAnswers(ctx, addr) },
		script("exec redis-server --dir /tmp --save '' --appendonly yes --appendfsync no --protected-mode no", ""))
	if err != nil {
		return nil, err
	}
	return &Redis{Service: s, Addr: addr}, nil
}

// logTail returns the last lines that a container wrote.
func (s *dockerService) logTail(ctx context.Context) string {
	r, err := s.container.Logs(ctx)
	if err != nil {
		return err.Error()
	}
	defer r.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(r)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-3):], []byte(" | ")))
}
