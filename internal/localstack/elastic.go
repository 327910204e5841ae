package localstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// Elastic is one Elasticsearch node without security. The distribution that localstack fetches lacks the modules reindex, lang-painless,
// rest-root, analysis-common, ingest-common and mapper-extras: no scripts, no _delete_by_query, no GET /.
type Elastic struct {
	*Service
	URL string // http://host:port

	dir        string
	port       int
	java, home string
}

func newElastic(s *Stack, port int) *Elastic {
	e := &Elastic{
		Service: s.service("elasticsearch"), URL: "http://" + net.JoinHostPort(Host, strconv.Itoa(port)),
		dir: filepath.Join(s.Dir, "elasticsearch"), port: port,
	}
	e.command, e.ready = e.run, func(ctx context.Context) error { return ElasticAnswers(ctx, e.URL) }
	return e
}

func (e *Elastic) prepareAndStart(ctx context.Context) error {
	f := e.stack.fetcher()
	var err error
	if e.java, err = f.java(ctx); err != nil {
		return err
	}
	if e.home, err = f.elasticsearch(ctx); err != nil {
		return err
	}
	if err := e.configure(); err != nil {
		return fmt.Errorf("localstack: elasticsearch: %w", err)
	}
	return e.Start(ctx)
}

func (e *Elastic) path(name string) string { return filepath.Join(e.dir, name) }

func (e *Elastic) configure() error {
	a := e.stack.account
	for _, dir := range []string{e.dir, e.path("conf"), e.path("data"), e.path("logs"), e.path("tmp")} {
		if err := a.mkdir(dir); err != nil {
			return err
		}
	}
	yml := fmt.Sprintf(`cluster.name: tidemark
node.name: local
path.data: %s
path.logs: %s
network.host: %s
http.port: %d
transport.port: 0
discovery.type: single-node
node.processors: 2
xpack.security.enabled: false
cluster.routing.allocation.disk.threshold_enabled: false
`, e.path("data"), e.path("logs"), Host, e.port)
	// Elasticsearch patches java.base, which rules out archives of verified classes; its jars were verified by checksum, so it starts two
	// seconds sooner without verifying each class again.
	jvm := fmt.Sprintf(`-XX:+UnlockDiagnosticVMOptions
-XX:-BytecodeVerificationRemote
-Xms128m
-Xmx256m
-XX:+UseSerialGC
-XX:TieredStopAtLevel=1
-XX:-AlwaysPreTouch
-XX:-UsePerfData
-XX:+ExitOnOutOfMemoryError
-Djava.io.tmpdir=%s
`, e.path("tmp"))
	log4j := `status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
`
	return errors.Join(
		a.write(e.path("conf/elasticsearch.yml"), yml),
		a.write(e.path("conf/jvm.options"), jvm),
		a.write(e.path("conf/log4j2.properties"), log4j))
}

func (e *Elastic) run() (*exec.Cmd, error) {
	if err := os.RemoveAll(e.path("pid")); err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(e.home, "bin", "elasticsearch"))
	cmd.Dir = e.dir
	cmd.Env = []string{
		"PATH=/usr/bin:/bin", "HOME=" + e.dir, "LC_ALL=C.UTF-8", "TZ=UTC",
		"ES_JAVA_HOME=" + e.java, "ES_PATH_CONF=" + e.path("conf"), "ES_TMPDIR=" + e.path("tmp"),
		"CLI_JAVA_OPTS=-XX:TieredStopAtLevel=1 -XX:-UsePerfData",
	}
	return cmd, nil
}
