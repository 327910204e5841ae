package localstack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Elasticsearch's start is mostly Java loading and verifying 8,000 classes. An archive of them (JEP 310) takes that away; it is made once for
// each Java and each Elasticsearch, with a pupil's list of the classes that it loaded. What is archived and what runs is Elasticsearch as it
// was fetched.

// elasticBootFormat changes when templates of before no longer fit.
const elasticBootFormat = 1

// launcherFile is in the template instead of the archive when a server that is started directly ends: it says why.
const launcherFile = "launcher"

// locate finds Java and Elasticsearch and makes the template.
func (e *Elastic) locate(ctx context.Context, s *Stack) error {
	f := s.fetcher()
	var err error
	if e.java, err = f.java(ctx); err != nil {
		return err
	}
	if e.home, err = f.elasticsearch(ctx); err != nil {
		return err
	}
	release, err := javaRelease(e.java)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("elasticsearch-boot-f%d-%s", elasticBootFormat, shortSum(e.home+"\n"+e.java+"\n"+release))
	if s.account != nil {
		name += "-" + s.account.name
	}
	e.template, err = f.once(ctx, name, func(part string) error { return e.train(ctx, s, part) })
	return err
}

// javaRelease is what java.home/release says, which changes with each update of Java; empty where there is none.
func javaRelease(home string) (string, error) {
	release, err := os.ReadFile(filepath.Join(home, "release"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("localstack: %w", err)
	}
	return string(release), nil
}

// train makes the template: the archive of the classes that a pupil loads while it starts, indexes a document and searches for it.
func (e *Elastic) train(ctx context.Context, s *Stack, dir string) error {
	s.report("elasticsearch", Fetching, "archiving classes, once")
	port, err := s.ports.reserve(0)
	if err != nil {
		return err
	}
	if err := s.account.mkdir(dir); err != nil {
		return err
	}
	pupil := elasticNode(s.process("elasticsearch-training", filepath.Join(dir, "training.log")), filepath.Join(dir, "run"), port)
	pupil.java, pupil.home, pupil.training = e.java, e.home, filepath.Join(dir, "run", "classes.txt")
	if err := pupil.configure(); err != nil {
		return err
	}
	err = pupil.Start(ctx)
	if errors.Is(err, errEnded) {
		// Another version with another start: its launcher knows it.
		return errors.Join(s.account.write(filepath.Join(dir, launcherFile), err.Error()+"\n"), os.RemoveAll(pupil.dir))
	}
	if err != nil {
		return err
	}
	if err := errors.Join(pupil.rehearse(ctx), pupil.Stop(ctx)); err != nil {
		return err
	}
	if err := pupil.archive(filepath.Join(dir, classArchive)); err != nil {
		return err
	}
	return os.RemoveAll(pupil.dir)
}

// rehearse has the server do a little of what it is for.
func (e *Elastic) rehearse(ctx context.Context) error {
	for _, call := range [][3]string{
		{http.MethodPut, "/rehearsal", `{"settings":{"number_of_shards":1,"number_of_replicas":0},"mappings":{"properties":{"t":{"type":"text"},"n":{"type":"long"}}}}`},
		{http.MethodPost, "/rehearsal/_bulk?refresh=true", `{"index":{"_id":"1","version":1,"version_type":"external"}}` + "\n" + `{"t":"red shoes","n":1}` + "\n"},
		{http.MethodPost, "/rehearsal/_search", `{"query":{"bool":{"filter":[{"range":{"n":{"gte":0}}}],"must":[{"match":{"t":"shoes"}}]}},"sort":["n"]}`},
		{http.MethodDelete, "/rehearsal", ""},
	} {
		req, err := http.NewRequestWithContext(ctx, call[0], e.URL+call[1], strings.NewReader(call[2]))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close() //nolint:errcheck // nothing is read
		if resp.StatusCode >= http.StatusMultipleChoices {
			return fmt.Errorf("%s %s: %s", call[0], call[1], resp.Status)
		}
	}
	return nil
}

// archive writes the class archive from the pupil's list.
func (e *Elastic) archive(file string) error {
	list, err := os.ReadFile(e.training)
	if err != nil {
		return err
	}
	// Lines with an @ are about lambda expressions: Java 17 crashes at those of classes that an agent has changed, and Elasticsearch has an agent
	// (entitlements).
	var kept strings.Builder
	for line := range strings.Lines(string(list)) {
		if !strings.Contains(line, "@") {
			kept.WriteString(line)
		}
	}
	if err := e.stack.account.write(e.training, kept.String()); err != nil {
		return err
	}
	flags, err := e.serverFlags()
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(e.java, "bin", "java"), append([]string{
		"-Xshare:dump", "-XX:SharedClassListFile=" + e.training, "-XX:SharedArchiveFile=" + file, "-Xlog:disable", "-Xlog:all=error:stderr",
	}, flags...)...)
	cmd.Dir, cmd.Env = e.dir, e.environment()
	return e.stack.run(cmd, "")
}

// server is the command that the launcher would run, with one difference: the entitlements' bridge is appended to the boot class path instead of
// patched into java.base, which would rule out archives. It is called from the same classes and checks the same.
func (e *Elastic) server() (*exec.Cmd, error) {
	flags, err := e.serverFlags()
	if err != nil {
		return nil, err
	}
	if e.training != "" {
		flags = append([]string{"-XX:DumpLoadedClassList=" + e.training}, flags...)
	} else {
		flags = append([]string{"-XX:SharedArchiveFile=" + filepath.Join(e.template, classArchive), "-Xlog:disable", "-Xlog:all=error:stderr"}, flags...)
	}
	cmd := exec.Command(filepath.Join(e.java, "bin", "java"), flags...)
	cmd.Dir, cmd.Env = e.dir, append(e.environment(), "LIBFFI_TMPDIR="+e.path("tmp"))
	in, leash, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if _, err := leash.Write(e.serverArgs()); err != nil { // a few hundred bytes: the pipe holds them
		return nil, errors.Join(err, in.Close(), leash.Close())
	}
	if e.leash != nil {
		e.leash.Close() //nolint:errcheck // of a server that has ended
	}
	e.leash, cmd.Stdin = leash, in
	return cmd, nil
}

func (e *Elastic) serverFlags() ([]string, error) {
	bridge, err := filepath.Glob(filepath.Join(e.home, "lib", "entitlement-bridge", "*.jar"))
	if err != nil {
		return nil, err
	}
	const initialization = "org.elasticsearch.entitlement/org.elasticsearch.entitlement.initialization"
	flags := append(e.javaFlags(),
		"-Xbootclasspath/a:"+strings.Join(bridge, ":"), "--add-reads=org.elasticsearch.entitlement=ALL-UNNAMED", "--add-exports="+initialization+"=ALL-UNNAMED",
		"-XX:+EnableDynamicAgentLoading", "-Djdk.attach.allowAttachSelf=true",
		"-XX:MaxDirectMemorySize=128m", "-Xss1m", "-XX:-OmitStackTraceInFastThrow", "-XX:ActiveProcessorCount=2",
		"-Djava.awt.headless=true", "-Dfile.encoding=UTF-8", "-Djava.locale.providers=SPI,COMPAT", "-Djna.nosys=true",
		"-Dio.netty.noUnsafe=true", "-Dio.netty.noKeySetOptimization=true", "-Dio.netty.recycler.maxCapacityPerThread=0",
		"-Dlog4j.shutdownHookEnabled=false", "-Dlog4j2.disable.jmx=true", "-Dlog4j2.formatMsgNoLookups=true",
		"-Des.networkaddress.cache.ttl=60", "-Des.networkaddress.cache.negative.ttl=10",
		"-Dorg.apache.lucene.vectorization.upperJavaFeatureVersion=17",
		"-Des.path.home="+e.home, "-Des.distribution.type=zip", "-Des.java.type=ES_JAVA_HOME",
		"--module-path", filepath.Join(e.home, "lib"), "--add-modules=jdk.net", "--add-modules=jdk.management.agent", "--add-modules=ALL-MODULE-PATH",
		"-m", "org.elasticsearch.server/org.elasticsearch.bootstrap.Elasticsearch")
	return flags, nil
}

// serverArgs is what a server reads first from its standard input: org.elasticsearch.bootstrap.ServerArgs in the format of its StreamInput.
// A keystore is expected to hold a seed; nothing here is secret.
func (e *Elastic) serverArgs() []byte {
	var b bytes.Buffer
	text := func(s string) {
		b.Write(binary.AppendUvarint(nil, uint64(len(s))))
		b.WriteString(s)
	}
	b.Write([]byte{0, 0, 0}) // no daemon, not quiet, no file for the process id

	const seed = "localstack-keystore-seed"
	sum := sha256.Sum256([]byte(seed))
	text("org.elasticsearch.common.settings.KeyStoreWrapper")
	b.Write([]byte{0, 0, 0, 7, 0, 0, 1}) // its format, no password, no encrypted form, one entry
	text("keystore.seed")
	text(seed)
	text(string(sum[:]))
	b.WriteByte(0) // not closed

	settings := append(e.settings(), [2]string{"path.home", e.home})
	b.Write(binary.AppendUvarint(nil, uint64(len(settings))))
	for _, s := range settings {
		text(s[0])
		b.WriteByte(0) // the value is a string
		text(s[1])
	}
	text(e.path("conf"))
	text(e.path("logs"))
	return b.Bytes()
}
