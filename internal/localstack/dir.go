package localstack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// tempPrefix begins the name of every temporary stack folder; sweep recognises them by it.
const tempPrefix = "tidemark-stack-"

// openDir makes the stack's folder, or takes over the one of the spec, and locks it against another stack.
func (s *Stack) openDir() error {
	dir := s.spec.Dir
	if dir == "" {
		base := os.TempDir()
		sweep(base)
		if memory := memoryDir(); memory != "" {
			sweep(memory)
			if s.spec.Memory {
				base = memory
			}
		}
		var err error
		if dir, err = os.MkdirTemp(base, tempPrefix); err != nil {
			return fmt.Errorf("localstack: %w", err)
		}
	} else {
		var err error
		if dir, err = filepath.Abs(dir); err != nil {
			return fmt.Errorf("localstack: %w", err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("localstack: %w", err)
		}
	}
	s.Dir = dir
	if err := s.account.reach(dir); err != nil {
		return err
	}
	if err := s.account.own(dir); err != nil {
		return fmt.Errorf("localstack: %w", err)
	}
	path := filepath.Join(dir, "lock")
	opened := path
	if s.spec.Dir == "" {
		opened += ".new" // sweep of another process must not find it unlocked
	}
	lock, err := os.OpenFile(opened, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("localstack: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close() //nolint:errcheck // not ours
		return fmt.Errorf("localstack: %s is in use by another process; stop that one or choose another folder", dir)
	}
	if err := os.Rename(opened, path); err != nil {
		lock.Close() //nolint:errcheck // not used
		return fmt.Errorf("localstack: %w", err)
	}
	s.lock = lock
	if err := s.account.mkdir(filepath.Join(dir, "logs")); err != nil {
		return fmt.Errorf("localstack: %w", err)
	}
	return nil
}

// minMemory is how many bytes must be free in memory for a stack to live there: a few servers with their WAL.
const minMemory = 4 << 30

// closeDir removes the folder, unless it is to be kept, and unlocks it.
func (s *Stack) closeDir() error {
	var err error
	if !s.spec.Keep {
		err = os.RemoveAll(s.Dir)
	}
	return errors.Join(err, s.lock.Close())
}

// sweep removes the temporary folders of stacks whose process is gone: their lock is free.
func sweep(temp string) {
	entries, err := os.ReadDir(temp)
	if err != nil {
		return // nothing can be swept; making our own folder will say why
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		dir := filepath.Join(temp, e.Name())
		lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
		if err != nil {
			continue // being made just now, or another user's
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(dir) // best effort: the next sweep tries again
		}
		lock.Close() //nolint:errcheck // only a lock
	}
}
