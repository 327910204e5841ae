package localstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// emptyMachine hides everything that is installed: an empty cache, no overrides, and only the given programs on the PATH.
func emptyMachine(t *testing.T, programs map[string]string) *fetcher {
	t.Helper()
	bin := t.TempDir()
	for name, script := range programs {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	t.Setenv("TIDEMARK_CACHE", t.TempDir())
	for _, name := range []string{"JAVA_HOME", "TIDEMARK_JAVA_HOME", "TIDEMARK_KAFKA_LIBS", "TIDEMARK_ELASTICSEARCH_HOME", "TIDEMARK_REDIS_SERVER"} {
		t.Setenv(name, "")
	}
	keptSbin, keptJava := sbin, installedJava
	t.Cleanup(func() { sbin, installedJava = keptSbin, keptJava })
	sbin, installedJava = nil, filepath.Join(bin, "none")
	return &fetcher{say: func(string, string) {}}
}

// fakeMaven copies content to where mvn would put the file.
func fakeMaven(file, content string) string {
	return fmt.Sprintf(`for a in "$@"; do case "$a" in -DoutputDirectory=*) printf '%%s' '%s' > "${a#-DoutputDirectory=}/%s";; esac; done`, content, file)
}

func TestDownloadThatDiffersIsRefused(t *testing.T) {
	f := emptyMachine(t, map[string]string{"mvn": fakeMaven("elasticsearch-8.19.21.zip", "not what was pinned")})
	_, err := f.elasticsearch(t.Context())
	if !errors.Is(err, ErrChecksum) {
		t.Fatalf("got %v, want ErrChecksum", err)
	}
	entries, err := os.ReadDir(os.Getenv("TIDEMARK_CACHE"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			t.Errorf("%s was kept", e.Name())
		}
	}
}

func TestVerify(t *testing.T) {
	pin := download{"d", "g:a:1:jar", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"} // of "abc"
	for _, c := range []struct {
		name  string
		files map[string]string
		ok    bool
	}{
		{"as pinned", map[string]string{"a-1.jar": "abc"}, true},
		{"other content", map[string]string{"a-1.jar": "abd"}, false},
		{"longer", map[string]string{"a-1.jar": "abcd"}, false},
		{"one too many", map[string]string{"a-1.jar": "abc", "b-1.jar": "abc"}, false},
		{"missing", nil, false},
	} {
		dir := t.TempDir()
		for name, content := range c.files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := verify(dir, []download{pin}); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestLock holds downloads.lock to what the code looks up.
func TestLock(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		for _, v := range PostgresVersions {
			if d, err := pinned("postgres-" + v + "-linux-" + arch); err != nil || len(d) != 1 || !strings.HasPrefix(d[0].version(), v+".") {
				t.Errorf("PostgreSQL %s for %s: %v, %v", v, arch, d, err)
			}
		}
	}
	for _, name := range []string{"kafka", "elasticsearch"} {
		if _, err := pinned(name); err != nil {
			t.Error(err)
		}
	}
	if _, err := parseLock("kafka\tg:a:1\t3\tsum\n"); err == nil || !strings.Contains(err.Error(), "downloads.lock:1") {
		t.Errorf("a malformed line gives %v", err)
	}
}

// TestMissing holds errors to one line that names what to install.
func TestMissing(t *testing.T) {
	for _, c := range []struct {
		name string
		find func(context.Context, *fetcher) error
		want string
	}{
		{"java", func(ctx context.Context, f *fetcher) error { _, err := f.java(ctx); return err }, "default-jre-headless"},
		{"old java", func(ctx context.Context, f *fetcher) error {
			home := t.TempDir()
			if err := writeFile(filepath.Join(home, "bin", "java"), strings.NewReader("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2"), 0o755); err != nil {
				return err
			}
			t.Setenv("JAVA_HOME", home)
			_, err := f.java(ctx)
			return err
		}, "no Java 17 or newer"},
		{"maven", func(ctx context.Context, f *fetcher) error { _, err := f.kafka(ctx); return err }, "install maven|package maven"},
		{"redis", func(ctx context.Context, f *fetcher) error { _, _, err := f.redis(ctx); return err }, "package redis-server"},
		{"override", func(ctx context.Context, f *fetcher) error {
			t.Setenv("TIDEMARK_POSTGRES_18", "/nowhere")
			_, err := f.postgres(ctx, "18")
			return err
		}, "TIDEMARK_POSTGRES_18=/nowhere holds no initdb"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := emptyMachine(t, nil)
			err := c.find(t.Context(), f)
			if err == nil {
				t.Fatal("found on an empty machine")
			}
			found := false
			for want := range strings.SplitSeq(c.want, "|") {
				found = found || strings.Contains(err.Error(), want)
			}
			if !found || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q, want one line with %q", err, c.want)
			}
		})
	}
}

// TestOnce has many ask for one folder at the same time: one makes it, and a failure leaves nothing that looks complete.
func TestOnce(t *testing.T) {
	f := emptyMachine(t, nil)
	if _, err := f.once(t.Context(), "thing", func(part string) error {
		return errors.Join(os.Mkdir(part, 0o755), errors.New("broke in the middle"))
	}); err == nil || exists(filepath.Join(os.Getenv("TIDEMARK_CACHE"), "thing")) {
		t.Fatalf("after a failure: %v", err)
	}
	var made atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			dir, err := f.once(t.Context(), "thing", func(part string) error {
				made.Add(1)
				return os.Mkdir(part, 0o755)
			})
			if err != nil || !exists(dir) {
				t.Errorf("%s: %v", dir, err)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times", made.Load())
	}
}

func TestPortsAreNotSharedWithAnotherStack(t *testing.T) {
	var a, b ports
	t.Cleanup(func() { a.release(); b.release() })
	first, err := a.reserve(0)
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.reserve(first)
	if err != nil {
		t.Fatal(err)
	}
	if first == second {
		t.Errorf("port %d was reserved twice", first)
	}
	a.release()
	third, err := b.reserve(first)
	if err != nil || third != first {
		t.Errorf("a released port: %d, %v, want %d", third, err, first)
	}
}
