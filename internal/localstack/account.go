package localstack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// account is the unprivileged user that runs services when this process is root; nil means the current user.
type account struct {
	name     string
	uid, gid uint32
}

// unprivileged returns $TIDEMARK_RUN_AS or nobody when this process is root, else nil.
func unprivileged() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	name := os.Getenv("TIDEMARK_RUN_AS")
	if name == "" {
		name = "nobody"
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("localstack: PostgreSQL and Elasticsearch refuse to run as root; set TIDEMARK_RUN_AS to another user: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("localstack: user %s: uid %q: %w", name, u.Uid, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("localstack: user %s: gid %q: %w", name, u.Gid, err)
	}
	if uid == 0 {
		return nil, fmt.Errorf("localstack: TIDEMARK_RUN_AS=%s is root itself; name an unprivileged user", name)
	}
	return &account{name: name, uid: uint32(uid), gid: uint32(gid)}, nil
}

// own gives path to the account; nothing to do for the current user.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}

// mkdir makes path (its parent must exist, an existing folder is kept) with mode 0700, owned by the account.
func (a *account) mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	return a.own(path)
}

// write makes a file with content, owned by the account.
func (a *account) write(path, content string) error {
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	return a.own(path)
}

// reach reports an error when the account cannot search one of the folders above path.
func (a *account) reach(path string) error {
	if a == nil {
		return nil
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("localstack: %w", err)
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("localstack: services run as %s, who cannot enter %s: choose a folder such as one below /var/tmp, or chmod o+x %s", a.name, dir, dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// copyTree copies the folder from to the new folder to, files and symbolic links with their modes, all owned by the account. What skip wants
// (a path relative to from) is left out with all below it; a file that vanishes meanwhile is left out too, for a running server removes some.
func (a *account) copyTree(from, to string, skip func(rel string) bool) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != from {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if skip(rel) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		target := filepath.Join(to, rel)
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			if err := os.Mkdir(target, info.Mode().Perm()); err != nil {
				return err
			}
		case d.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			if err := os.Symlink(link, target); err != nil {
				return err
			}
		default:
			err := copyFile(path, target, info.Mode().Perm())
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
		}
		return a.own(target)
	})
}

// copyFile copies one file; on Linux the kernel does it (copy_file_range, a reflink where the file system can).
func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // nothing was written to it
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err := out.ReadFrom(in); err != nil {
		out.Close() //nolint:errcheck // the copy has failed already
		return err
	}
	return out.Close()
}
