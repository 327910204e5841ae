package localstack

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	template   string // see train
	training   bool   // write the class archive instead of using it
}

// classArchive is the archive's name in the template.
const classArchive = "classes.jsa"

// KafkaProperties are the lines of server.properties that a test broker needs, wherever it runs.
const KafkaProperties = `controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
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
# A broker that comes back after a crash must wait until its former self counts as dead.
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
group.min.session.timeout.ms=1000
# Small and quick.
num.network.threads=1
num.io.threads=2
num.recovery.threads.per.data.dir=1
background.threads=2
log.cleaner.dedupe.buffer.size=2097152
log.index.size.max.bytes=1048576
log.segment.bytes=16777216
`

func newKafka(s *Stack, broker, controller int) *Kafka {
	k := &Kafka{
		Service: s.service("kafka"), Brokers: []string{net.JoinHostPort(Host, strconv.Itoa(broker))},
		dir: filepath.Join(s.Dir, "kafka"), broker: broker, controller: controller,
	}
	k.command, k.ready = k.run, func(ctx context.Context) error { return KafkaAnswers(ctx, k.Brokers[0]) }
	return k
}

func (k *Kafka) prepareAndStart(ctx context.Context) error {
	if err := k.locate(ctx, k.stack); err != nil {
		return err
	}
	if err := k.stack.account.mkdir(k.dir); err != nil {
		return fmt.Errorf("localstack: %w", err)
	}
	if err := k.configure(); err != nil {
		return fmt.Errorf("localstack: kafka: %w", err)
	}
	if log := filepath.Join(k.dir, "log"); !exists(log) {
		if err := k.stack.adopt(filepath.Join(k.template, "log"), log); err != nil {
			return err
		}
	}
	return k.Start(ctx)
}

// locate finds Java and Kafka and makes the template.
func (k *Kafka) locate(ctx context.Context, s *Stack) error {
	f := s.fetcher()
	var err error
	if k.java, err = f.java(ctx); err != nil {
		return err
	}
	if k.libs, err = f.kafka(ctx); err != nil {
		return err
	}
	release, err := javaRelease(k.java)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("kafka-boot-f%d-%s", templateFormat, shortSum(k.libs+"\n"+k.java+"\n"+release))
	if s.account != nil {
		name += "-" + s.account.name
	}
	k.template, err = f.once(ctx, name, func(part string) error { return k.train(ctx, s, part) })
	return err
}

// train makes the template: a formatted log folder, and an archive of the classes that a broker loads while it starts (JEP 350), with which
// it starts in half the time. The archive is an optimisation: Java ignores it when it does not fit.
func (k *Kafka) train(ctx context.Context, s *Stack, dir string) error {
	s.report("kafka", Fetching, "formatting a log folder and archiving classes, once")
	broker, err := s.ports.reserve(0)
	if err != nil {
		return err
	}
	controller, err := s.ports.reserve(0)
	if err != nil {
		return err
	}
	if err := s.account.mkdir(dir); err != nil {
		return err
	}
	pupil := &Kafka{
		Service: s.process("kafka-training", filepath.Join(dir, "training.log")), Brokers: []string{net.JoinHostPort(Host, strconv.Itoa(broker))},
		dir: filepath.Join(dir, "run"), broker: broker, controller: controller, java: k.java, libs: k.libs, training: true,
	}
	pupil.command, pupil.ready = pupil.run, func(ctx context.Context) error { return KafkaAnswers(ctx, pupil.Brokers[0]) }
	if err := errors.Join(s.account.mkdir(pupil.dir), pupil.configure(), pupil.format()); err != nil {
		return err
	}
	if err := s.adopt(filepath.Join(pupil.dir, "log"), filepath.Join(dir, "log")); err != nil {
		return err
	}
	if err := pupil.Start(ctx); err != nil {
		return err
	}
	if err := pupil.Stop(ctx); err != nil {
		return err
	}
	archive := filepath.Join(pupil.dir, classArchive)
	if exists(archive) {
		if err := os.Rename(archive, filepath.Join(dir, classArchive)); err != nil {
			return err
		}
	}
	return os.RemoveAll(pupil.dir)
}

func (k *Kafka) configure() error {
	properties := fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@%[1]s:%[3]d
listeners=PLAINTEXT://%[1]s:%[2]d,CONTROLLER://%[1]s:%[3]d
advertised.listeners=PLAINTEXT://%[1]s:%[2]d
log.dirs=%[4]s
%[5]s`, Host, k.broker, k.controller, filepath.Join(k.dir, "log"), KafkaProperties)
	return errors.Join(
		k.stack.account.write(filepath.Join(k.dir, "server.properties"), properties),
		k.stack.account.write(filepath.Join(k.dir, "log4j2.yaml"), kafkaLog4j))
}

// javaCommand runs a class of Kafka. Java's C1 compiler and serial collector start fastest and use least memory.
func (k *Kafka) javaCommand(class string, args ...string) (*exec.Cmd, error) {
	// The class archive is good for one class path, in this order: no wildcard.
	jars, err := filepath.Glob(filepath.Join(k.libs, "*.jar"))
	if err != nil {
		return nil, err
	}
	slices.Sort(jars)
	flags := []string{
		"-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError",
		"-Djava.net.preferIPv4Stack=true", "-Djava.awt.headless=true", "-Djava.io.tmpdir=" + k.dir,
		"-Dlog4j2.configurationFile=" + filepath.Join(k.dir, "log4j2.yaml"),
		"-cp", strings.Join(jars, ":"),
	}
	switch archive := filepath.Join(k.template, classArchive); {
	case k.training && class == brokerClass:
		flags = append(flags, "-XX:ArchiveClassesAtExit="+filepath.Join(k.dir, classArchive))
	case k.template != "" && exists(archive):
		flags = append(flags, "-XX:SharedArchiveFile="+archive, "-Xlog:disable", "-Xlog:all=error:stderr")
	}
	cmd := exec.Command(filepath.Join(k.java, "bin", "java"), append(append(flags, class), args...)...)
	cmd.Dir = k.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + k.dir, "LC_ALL=C.UTF-8", "TZ=UTC"}
	return cmd, nil
}

const brokerClass = "kafka.Kafka"

func (k *Kafka) format() error {
	cmd, err := k.javaCommand("kafka.tools.StorageTool", "format", "-t", kafkaClusterID, "-c", filepath.Join(k.dir, "server.properties"))
	if err != nil {
		return err
	}
	return k.stack.run(cmd, "")
}

func (k *Kafka) run() (*exec.Cmd, error) {
	return k.javaCommand(brokerClass, filepath.Join(k.dir, "server.properties"))
}
