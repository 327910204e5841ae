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
	"strings"
)

// Elastic is one Elasticsearch node without security. The distribution that localstack fetches lacks the modules reindex, lang-painless,
// rest-root, analysis-common, ingest-common and mapper-extras: no scripts, no _delete_by_query, no GET /.
type Elastic struct {
	*Service
	URL string // http://host:port

	dir        string
	port       int
	java, home string
	template   string   // see locate
	training   string   // file for the names of the classes that it loads; empty: it is no pupil
	leash      *os.File // the other end of its standard input: the server ends when that does
}

func newElastic(s *Stack, port int) *Elastic {
	return elasticNode(s.service("elasticsearch"), filepath.Join(s.Dir, "elasticsearch"), port)
}

func elasticNode(service *Service, dir string, port int) *Elastic {
	e := &Elastic{Service: service, URL: "http://" + net.JoinHostPort(Host, strconv.Itoa(port)), dir: dir, port: port}
	e.command, e.ready = e.run, func(ctx context.Context) error { return ElasticAnswers(ctx, e.URL) }
	return e
}

func (e *Elastic) prepareAndStart(ctx context.Context) error {
	if err := e.locate(ctx, e.stack); err != nil {
		return err
	}
	if err := e.configure(); err != nil {
		return fmt.Errorf("localstack: elasticsearch: %w", err)
	}
	return e.Start(ctx)
}

func (e *Elastic) path(name string) string { return filepath.Join(e.dir, name) }

// settings are those of elasticsearch.yml.
func (e *Elastic) settings() [][2]string {
	return [][2]string{
		{"cluster.name", "tidemark"},
		{"node.name", "local"},
		{"path.data", e.path("data")},
		{"path.logs", e.path("logs")},
		{"network.host", Host},
		{"http.port", strconv.Itoa(e.port)},
		{"transport.port", "0"},
		{"discovery.type", "single-node"},
		{"node.processors", "2"},
		{"xpack.security.enabled", "false"},
		{"cluster.routing.allocation.disk.threshold_enabled", "false"},
	}
}

// javaFlags are those of jvm.options: Java's C1 compiler and serial collector start fastest and use least memory.
func (e *Elastic) javaFlags() []string {
	return []string{
		"-Xms128m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError",
		"-Djava.io.tmpdir=" + e.path("tmp"),
	}
}

const elasticLog4j = `status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
`

func (e *Elastic) configure() error {
	a := e.stack.account
	for _, dir := range []string{e.dir, e.path("conf"), e.path("data"), e.path("logs"), e.path("tmp")} {
		if err := a.mkdir(dir); err != nil {
			return err
		}
	}
	var yml strings.Builder
	for _, s := range e.settings() {
		fmt.Fprintf(&yml, "%s: %s\n", s[0], s[1])
	}
	// The launcher has the heap touched page by page before anything runs; nobody waits for pages here.
	jvm := strings.Join(append(e.javaFlags(), "-XX:-AlwaysPreTouch"), "\n") + "\n"
	return errors.Join(
		a.write(e.path("conf/elasticsearch.yml"), yml.String()),
		a.write(e.path("conf/jvm.options"), jvm),
		a.write(e.path("conf/log4j2.properties"), elasticLog4j))
}

// run starts the server directly where the template says that this works, and else through its launcher: a program that reads the
// configuration, starts the server with it as another Java process, and waits, all of which takes a third as long as the server itself.
func (e *Elastic) run() (*exec.Cmd, error) {
	if e.training != "" || exists(filepath.Join(e.template, classArchive)) {
		return e.server()
	}
	cmd := exec.Command(filepath.Join(e.home, "bin", "elasticsearch"))
	cmd.Dir = e.dir
	cmd.Env = append(e.environment(),
		"ES_JAVA_HOME="+e.java, "ES_PATH_CONF="+e.path("conf"), "ES_TMPDIR="+e.path("tmp"),
		"CLI_JAVA_OPTS=-XX:TieredStopAtLevel=1 -XX:-UsePerfData")
	return cmd, nil
}

func (e *Elastic) environment() []string {
	return []string{"PATH=/usr/bin:/bin", "HOME=" + e.dir, "LC_ALL=C.UTF-8", "TZ=UTC"}
}
