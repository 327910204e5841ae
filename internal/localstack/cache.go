package localstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// cacheDir is where downloads and templates are kept between runs.
func cacheDir() (string, error) {
	dir := os.Getenv("TIDEMARK_CACHE")
	switch {
	case dir != "":
	case os.Geteuid() == 0:
		dir = "/var/cache/tidemark" // root's home is closed to the user that runs the services
	default:
		base, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("localstack: no cache folder, set TIDEMARK_CACHE: %w", err)
		}
		dir = filepath.Join(base, "tidemark")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("localstack: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("localstack: %w", err)
	}
	return dir, nil
}

// fetcher finds programs, downloads what is missing and keeps it in the cache.
type fetcher struct {
	account *account
	say     func(distribution, detail string) // progress; never nil
}

func (s *Stack) fetcher() *fetcher {
	return &fetcher{account: s.account, say: func(name, detail string) { s.report(name, Fetching, detail) }}
}

// once returns the cached folder name, and makes it with fill when it is not there. fill gets a path of the same parent that does not exist; it
// appears under its name only when fill has succeeded, so a folder that exists is complete. Other goroutines and processes wait.
func (f *fetcher) once(ctx context.Context, name string, fill func(part string) error) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, name)
	if exists(dir) {
		return dir, f.account.reach(dir)
	}
	unlock, err := f.lock(ctx, filepath.Join(cache, name+".lock"), name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(dir) { // another process has just made it
		return dir, f.account.reach(dir)
	}
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil { // of a process that was killed
		return "", fmt.Errorf("localstack: %w", err)
	}
	if err := fill(part); err != nil {
		return "", errors.Join(fmt.Errorf("localstack: make %s: %w", name, err), os.RemoveAll(part))
	}
	if err := os.Rename(part, dir); err != nil {
		return "", fmt.Errorf("localstack: %w", err)
	}
	return dir, f.account.reach(dir)
}

// lock takes an exclusive flock on path, waiting for whoever holds it; distribution is what progress says waits.
func (f *fetcher) lock(ctx context.Context, path, distribution string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("localstack: %w", err)
	}
	for said := false; ; said = true {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil //nolint:errcheck // only a lock
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			file.Close() //nolint:errcheck // only a lock
			return nil, fmt.Errorf("localstack: lock %s: %w", path, err)
		}
		if !said {
			f.say(distribution, "waiting for another download")
		}
		select {
		case <-ctx.Done():
			file.Close() //nolint:errcheck // only a lock
			return nil, fmt.Errorf("localstack: lock %s: %w", path, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
