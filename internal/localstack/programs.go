package localstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

// minJava is the oldest Java that Kafka and Elasticsearch run on.
const minJava = 17

// postgres returns the folder with initdb and postgres of a major version.
func (f *fetcher) postgres(ctx context.Context, major string) (string, error) {
	if bin := os.Getenv("TIDEMARK_POSTGRES_" + major); bin != "" {
		if !exists(filepath.Join(bin, "initdb")) {
			return "", fmt.Errorf("localstack: TIDEMARK_POSTGRES_%s=%s holds no initdb", major, bin)
		}
		return bin, nil
	}
	if bin := filepath.Join("/usr/lib/postgresql", major, "bin"); exists(filepath.Join(bin, "initdb")) {
		return bin, nil
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			bin := filepath.Dir(path)
			if version, err := postgresVersion(ctx, bin); err == nil && (version == major || strings.HasPrefix(version, major+".")) {
				return bin, nil
			}
		}
	}
	distribution := fmt.Sprintf("postgres-%s-%s-%s", major, runtime.GOOS, runtime.GOARCH)
	files, err := pinned(distribution)
	if err != nil {
		return "", fmt.Errorf("localstack: %w: install PostgreSQL %s and set TIDEMARK_POSTGRES_%s to its folder of programs", err, major, major)
	}
	dir, err := f.distribution(ctx, "postgres-"+major, files, func(downloads, dir string) error {
		inner := filepath.Join(downloads, "inner")
		jar := filepath.Join(downloads, files[0].file())
		if err := unzip(jar, inner, func(name string) bool { return strings.HasSuffix(name, ".txz") }); err != nil {
			return err
		}
		archives, err := filepath.Glob(filepath.Join(inner, "*.txz"))
		if err != nil || len(archives) != 1 {
			return errors.Join(fmt.Errorf("%s holds %d .txz archives, want one", jar, len(archives)), err)
		}
		return untarXZ(ctx, archives[0], dir)
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "bin"), nil
}

// kafka returns the folder of Kafka's jars.
func (f *fetcher) kafka(ctx context.Context) (string, error) {
	if dir := os.Getenv("TIDEMARK_KAFKA_LIBS"); dir != "" {
		if jars, err := filepath.Glob(filepath.Join(dir, "kafka_2.13-*.jar")); err != nil || len(jars) == 0 {
			return "", fmt.Errorf("localstack: TIDEMARK_KAFKA_LIBS=%s holds no kafka_2.13-*.jar", dir)
		}
		return dir, nil
	}
	files, err := pinned("kafka")
	if err != nil {
		return "", fmt.Errorf("localstack: %w", err)
	}
	return f.distribution(ctx, "kafka", files, func(downloads, dir string) error { return os.Rename(downloads, dir) })
}

// elasticsearch returns its home folder.
func (f *fetcher) elasticsearch(ctx context.Context) (string, error) {
	for _, home := range []string{os.Getenv("TIDEMARK_ELASTICSEARCH_HOME"), "/usr/share/elasticsearch"} {
		if home != "" && exists(filepath.Join(home, "bin", "elasticsearch")) {
			return home, nil
		}
	}
	if home := os.Getenv("TIDEMARK_ELASTICSEARCH_HOME"); home != "" {
		return "", fmt.Errorf("localstack: TIDEMARK_ELASTICSEARCH_HOME=%s holds no bin/elasticsearch", home)
	}
	files, err := pinned("elasticsearch")
	if err != nil {
		return "", fmt.Errorf("localstack: %w", err)
	}
	dir, err := f.distribution(ctx, "elasticsearch", files, func(downloads, dir string) error {
		return unzip(filepath.Join(downloads, files[0].file()), dir, func(string) bool { return true })
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "elasticsearch-"+files[0].version()), nil
}

// distribution returns the cached folder NAME-VERSION; when it is missing it downloads the files, verifies them and has unpack make it.
// The folder's name also carries the pinned sums, so that a new pin is never answered by an old folder.
func (f *fetcher) distribution(ctx context.Context, name string, files []download, unpack func(downloads, dir string) error) (string, error) {
	main, pins, size := files[0], "", int64(0)
	for _, d := range files {
		size += d.size
		pins += d.sha256
		if strings.HasPrefix(d.coordinates, "org.apache.kafka:kafka_2.13:") {
			main = d
		}
	}
	dir, err := f.once(ctx, fmt.Sprintf("%s-%s-%s", name, main.version(), shortSum(pins)), func(part string) error {
		f.say(name, fmt.Sprintf("%s, %d MB, through mvn", main.version(), (size+1<<19)>>20))
		downloads := part + ".downloads"
		if err := os.RemoveAll(downloads); err != nil {
			return err
		}
		err := f.maven(ctx, files, downloads)
		if err == nil {
			f.say(name, main.version()+" verified, unpacking")
			err = unpack(downloads, part)
		}
		return errors.Join(err, os.RemoveAll(downloads))
	})
	if err != nil {
		return "", err
	}
	return dir, nil
}

// redis returns the path of redis-server and the folder of its libraries ("" when they are the system's).
func (f *fetcher) redis(ctx context.Context) (program, libraries string, err error) {
	if path := os.Getenv("TIDEMARK_REDIS_SERVER"); path != "" {
		if !exists(path) {
			return "", "", fmt.Errorf("localstack: TIDEMARK_REDIS_SERVER=%s does not exist", path)
		}
		return path, "", nil
	}
	if path, err := lookPath("redis-server"); err == nil {
		return path, "", nil
	}
	if os.Geteuid() == 0 {
		path, err := f.tool(ctx, "redis-server", "redis-server")
		return path, "", err
	}
	dir, err := f.once(ctx, "redis", func(part string) error { return f.aptUnpack(ctx, part, "redis-server") })
	if err != nil {
		return "", "", fmt.Errorf("%w: install Debian's package redis-server, or set TIDEMARK_REDIS_SERVER", err)
	}
	libs, err := filepath.Glob(filepath.Join(dir, "usr/lib/*-linux-gnu*"))
	if err != nil {
		return "", "", fmt.Errorf("localstack: %w", err)
	}
	return filepath.Join(dir, "usr/bin/redis-server"), strings.Join(libs, ":"), nil
}

// installedJava is where Debian and others put their Javas; a variable for tests.
var installedJava = "/usr/lib/jvm/*"

var javaVersion = regexp.MustCompile(`version "(\d+)`)

// java returns the home folder of a Java that is new enough.
func (f *fetcher) java(ctx context.Context) (string, error) {
	var homes []string
	for _, name := range []string{"TIDEMARK_JAVA_HOME", "JAVA_HOME"} {
		if home := os.Getenv(name); home != "" {
			homes = append(homes, home)
		}
	}
	if path, err := exec.LookPath("java"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			homes = append(homes, filepath.Dir(filepath.Dir(path)))
		}
	}
	installed, err := filepath.Glob(installedJava)
	if err != nil {
		return "", fmt.Errorf("localstack: %w", err)
	}
	for _, home := range append(homes, installed...) {
		program := filepath.Join(home, "bin", "java")
		if !exists(program) || f.account.reach(program) != nil {
			continue
		}
		out, err := exec.CommandContext(ctx, program, "-version").CombinedOutput()
		if err != nil {
			continue
		}
		if m := javaVersion.FindSubmatch(out); m != nil {
			if major, err := strconv.Atoi(string(m[1])); err == nil && major >= minJava {
				return home, nil
			}
		}
	}
	return "", fmt.Errorf("localstack: no Java %d or newer in JAVA_HOME, PATH and /usr/lib/jvm: install Debian's package default-jre-headless, or set JAVA_HOME", minJava)
}
