package localstack

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// dependencyPlugin is Maven's own downloader. Its goal copy is used, not unpack: unpack without a pom leaves a marker folder behind
// and then skips its work the next time.
const dependencyPlugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"

// maven downloads the files of a distribution into the folder dir and verifies them.
func (f *fetcher) maven(ctx context.Context, files []download, dir string) error {
	if err := f.download(ctx, files, dir); err != nil {
		return err
	}
	return verify(dir, files)
}

// download has Maven bring files into the folder dir. Maven looks into its local repository and the user's mirrors first.
func (f *fetcher) download(ctx context.Context, files []download, dir string) error {
	mvn, err := f.tool(ctx, "mvn", "maven")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// Two Mavens writing one local repository get in each other's way.
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	unlock, err := f.lock(ctx, filepath.Join(cache, "maven.lock"), files[0].distribution)
	if err != nil {
		return err
	}
	defer unlock()
	if len(files) == 1 {
		return f.runMaven(ctx, files[0].distribution, mvn, dependencyPlugin+":copy", "-Dartifact="+files[0].coordinates, "-DoutputDirectory="+dir)
	}
	return f.mavenPOM(ctx, mvn, files, dir)
}

// mavenPOM downloads several files at once: a project that depends on exactly them.
func (f *fetcher) mavenPOM(ctx context.Context, mvn string, files []download, dir string) error {
	var pom strings.Builder
	pom.WriteString(`<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>` +
		`<groupId>local</groupId><artifactId>distribution</artifactId><version>1</version><packaging>pom</packaging><dependencies>`)
	for _, d := range files {
		c := strings.Split(d.coordinates, ":")
		fmt.Fprintf(&pom, `<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version><type>%s</type>`+
			`<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions></dependency>`, c[0], c[1], c[2], c[3])
	}
	pom.WriteString(`</dependencies></project>`)
	project, err := os.MkdirTemp("", "tidemark-maven-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(project) //nolint:errcheck // a small temporary file
	file := filepath.Join(project, "pom.xml")
	if err := os.WriteFile(file, []byte(pom.String()), 0o644); err != nil {
		return err
	}
	return f.runMaven(ctx, files[0].distribution, mvn, "-f", file, dependencyPlugin+":copy-dependencies", "-DoutputDirectory="+dir)
}

// progressInterval is how often downloads of small files are reported; files of a megabyte and more always are.
const progressInterval = 2 * time.Second

var downloaded = regexp.MustCompile(`Downloaded from [^:]*: \S*/(\S+\.(?:jar|pom|zip)) (\(.*\))`)

// runMaven runs mvn and reports what it downloads. The first run also brings mvn's own plugins, some hundred small files.
func (f *fetcher) runMaven(ctx context.Context, distribution, mvn string, args ...string) error {
	cmd := exec.CommandContext(ctx, mvn, append([]string{"-B", "-Dstyle.color=never"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return err
	}
	var failure string
	var count int
	var reported time.Time
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := downloaded.FindStringSubmatch(lines.Text()); m != nil {
			count++
			if strings.Contains(m[2], " MB at") || time.Since(reported) > progressInterval {
				f.say(distribution, fmt.Sprintf("%d files, %s %s", count, m[1], m[2]))
				reported = time.Now()
			}
		}
		// The first such line says what happened; an escape sequence may stand before it.
		if _, text, ok := strings.Cut(lines.Text(), "[ERROR] "); ok && failure == "" {
			failure = strings.TrimSuffix(text, " -> [Help 1]")
		}
	}
	_, _ = io.Copy(io.Discard, out) // a line too long for the scanner must not block mvn
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("mvn: %w: %s", err, failure)
	}
	return nil
}
