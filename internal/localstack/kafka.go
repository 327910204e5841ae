package localstack

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/segmentio/kafka-go"
)

//go:embed kafka.log4j2.yaml
var kafkaLog4j string

// kafkaClusterID is the same for every stack: a broker refuses a folder of another cluster, and stacks share a formatted template.
const kafkaClusterID = "dGlkZW1hcmstbG9jYWwtMQ"

// Kafka is one broker that is its own KRaft controller. It creates no topics by itself.
type Kafka struct {
	*Service
	Brokers []string // host:port

	dir        string
	broker     int
	controller int
	java, libs string
}

func newKafka(s *Stack, broker, controller int) *Kafka {
	k := &Kafka{
		Service: s.service("kafka"), Brokers: []string{net.JoinHostPort(Host, strconv.Itoa(broker))},
		dir: filepath.Join(s.Dir, "kafka"), broker: broker, controller: controller,
	}
	k.command, k.ready = k.run, k.answers
	return k
}

func (k *Kafka) prepareAndStart(ctx context.Context) error {
	f := k.stack.fetcher()
	var err error
	if k.java, err = f.java(ctx); err != nil {
		return err
	}
	if k.libs, err = f.kafka(ctx); err != nil {
		return err
	}
	if err := k.stack.account.mkdir(k.dir); err != nil {
		return fmt.Errorf("localstack: %w", err)
	}
	if err := k.configure(); err != nil {
		return fmt.Errorf("localstack: kafka: %w", err)
	}
	if !exists(filepath.Join(k.dir, "log", "meta.properties")) {
		if err := k.format(); err != nil {
			return fmt.Errorf("localstack: format kafka's folder: %w", err)
		}
	}
	return k.Start(ctx)
}

func (k *Kafka) configure() error {
	properties := fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@%[1]s:%[3]d
listeners=PLAINTEXT://%[1]s:%[2]d,CONTROLLER://%[1]s:%[3]d
advertised.listeners=PLAINTEXT://%[1]s:%[2]d
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=%[4]s
auto.create.topics.enable=false
# One broker holds the only copy of everything.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# Small and quick.
num.network.threads=1
num.io.threads=2
num.recovery.threads.per.data.dir=1
background.threads=2
log.cleaner.dedupe.buffer.size=2097152
log.index.size.max.bytes=1048576
log.segment.bytes=16777216
`, Host, k.broker, k.controller, filepath.Join(k.dir, "log"))
	return errors.Join(
		k.stack.account.write(filepath.Join(k.dir, "server.properties"), properties),
		k.stack.account.write(filepath.Join(k.dir, "log4j2.yaml"), kafkaLog4j))
}

// java's C1 compiler and serial collector start fastest and use least memory.
func (k *Kafka) javaCommand(class string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(k.java, "bin", "java"), append([]string{
		"-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError",
		"-Djava.net.preferIPv4Stack=true", "-Djava.awt.headless=true", "-Djava.io.tmpdir=" + k.dir,
		"-Dlog4j2.configurationFile=" + filepath.Join(k.dir, "log4j2.yaml"),
		"-cp", filepath.Join(k.libs, "*"), class,
	}, args...)...)
	cmd.Dir = k.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + k.dir, "LC_ALL=C.UTF-8", "TZ=UTC"}
	return cmd
}

func (k *Kafka) format() error {
	return k.stack.run(k.javaCommand("kafka.tools.StorageTool", "format", "-t", kafkaClusterID, "-c", filepath.Join(k.dir, "server.properties")), "")
}

func (k *Kafka) run() (*exec.Cmd, error) {
	return k.javaCommand("kafka.Kafka", filepath.Join(k.dir, "server.properties")), nil
}

// answers is one look at readiness: the broker lists itself, which it does once the controller has unfenced it.
func (k *Kafka) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", k.Brokers[0])
	if errors.Is(err, syscall.ECONNREFUSED) {
		return errors.New("it does not listen yet")
	}
	if err != nil {
		return err
	}
	_ = conn.Close() // only a look
	client := &kafka.Client{Addr: kafka.TCP(k.Brokers...), Transport: &kafka.Transport{DialTimeout: 500 * time.Millisecond}}
	defer client.Transport.(*kafka.Transport).CloseIdleConnections()
	meta, err := client.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return err
	}
	if len(meta.Brokers) != 1 {
		return fmt.Errorf("it lists %d brokers", len(meta.Brokers))
	}
	return nil
}
