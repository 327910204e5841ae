package localstack

import (
	"bufio"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

//go:embed downloads.lock
var downloadsLock string

// ErrChecksum says that a download is not what downloads.lock pins.
var ErrChecksum = errors.New("checksum mismatch")

// download is one pinned file: a line of downloads.lock.
type download struct {
	distribution string // such as "kafka"
	coordinates  string // group:artifact:version:packaging
	size         int64
	sha256       string // hexadecimal
}

// file is the name that Maven gives it.
func (d download) file() string {
	c := strings.Split(d.coordinates, ":")
	return c[1] + "-" + c[2] + "." + c[3]
}

func (d download) version() string { return strings.Split(d.coordinates, ":")[2] }

// parseLock reads the lines of downloads.lock.
func parseLock(text string) ([]download, error) {
	var all []download
	lines := bufio.NewScanner(strings.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		c := strings.Split(line, "\t")
		if len(c) != 4 || strings.Count(c[1], ":") != 3 || len(c[3]) != 2*sha256.Size {
			return nil, fmt.Errorf("downloads.lock:%d: want distribution, group:artifact:version:packaging, size and SHA-256, separated by tabs", n)
		}
		size, err := strconv.ParseInt(c[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("downloads.lock:%d: size: %w", n, err)
		}
		all = append(all, download{distribution: c[0], coordinates: c[1], size: size, sha256: c[3]})
	}
	return all, lines.Err()
}

// pinned returns the downloads of a distribution.
func pinned(distribution string) ([]download, error) {
	all, err := parseLock(downloadsLock)
	if err != nil {
		return nil, err
	}
	var found []download
	for _, d := range all {
		if d.distribution == distribution {
			found = append(found, d)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("downloads.lock pins no %s", distribution)
	}
	return found, nil
}

// KafkaVersion is the pinned version of Kafka.
func KafkaVersion() string { return pinnedVersion("kafka", "org.apache.kafka:kafka_2.13:") }

// ElasticsearchVersion is the pinned version of Elasticsearch.
func ElasticsearchVersion() string { return pinnedVersion("elasticsearch", "") }

// pinnedVersion returns the version of the first download of a distribution whose coordinates begin with prefix.
func pinnedVersion(distribution, prefix string) string {
	files, err := pinned(distribution)
	if err != nil {
		panic(err) // downloads.lock is part of the program, and TestLock reads it
	}
	for _, d := range files {
		if strings.HasPrefix(d.coordinates, prefix) {
			return d.version()
		}
	}
	panic("downloads.lock pins no " + prefix)
}

// verify reports an ErrChecksum when dir does not hold exactly the files of want.
func verify(dir string, want []download) error {
	names := map[string]bool{}
	for _, d := range want {
		names[d.file()] = true
		size, sum, err := measure(filepath.Join(dir, d.file()))
		if err != nil {
			return err
		}
		if size != d.size || sum != d.sha256 {
			return fmt.Errorf("%w: %s has %d bytes and SHA-256 %s, pinned are %d and %s: remove it from Maven's local repository, or find out who changed it",
				ErrChecksum, d.coordinates, size, sum, d.size, d.sha256)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !names[e.Name()] {
			return fmt.Errorf("%w: %s came along and is not pinned", ErrChecksum, e.Name())
		}
	}
	return nil
}

// measure returns a file's size in bytes and its SHA-256 in hexadecimal.
func measure(path string) (int64, string, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close() //nolint:errcheck // only read
	h := sha256.New()
	n, err := io.Copy(h, f)
	return n, hex.EncodeToString(h.Sum(nil)), err
}

// shortSum abbreviates the SHA-256 of text to eight hexadecimal digits, for names of folders.
func shortSum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}
