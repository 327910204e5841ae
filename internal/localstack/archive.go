package localstack

import (
	"archive/tar"
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/ulikunitz/xz"
)

// unzip unpacks the entries of a zip or jar that keep wants into dir, readable by everyone.
func unzip(archive, dir string, keep func(name string) bool) error {
	r, err := zip.OpenReader(archive)
	if err != nil {
		return fmt.Errorf("%s: %w", archive, err)
	}
	defer r.Close() //nolint:errcheck // only read
	for _, e := range r.File {
		if e.FileInfo().IsDir() || !keep(e.Name) {
			continue
		}
		if !filepath.IsLocal(e.Name) {
			return fmt.Errorf("%s: entry %q leads out of the folder", archive, e.Name)
		}
		in, err := e.Open()
		if err != nil {
			return fmt.Errorf("%s: %s: %w", archive, e.Name, err)
		}
		err = writeFile(filepath.Join(dir, e.Name), in, e.Mode())
		if err := errors.Join(err, in.Close()); err != nil {
			return fmt.Errorf("%s: %s: %w", archive, e.Name, err)
		}
	}
	return nil
}

// untarXZ unpacks a .tar.xz into dir, readable by everyone. An installed xz is several times as fast as the library.
func untarXZ(ctx context.Context, archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	if _, err := exec.LookPath("xz"); err != nil {
		z, err := xz.NewReader(f)
		if err != nil {
			return fmt.Errorf("%s: %w", archive, err)
		}
		return untar(archive, z, dir)
	}
	cmd := exec.CommandContext(ctx, "xz", "-dc")
	cmd.Stdin = f
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = untar(archive, out, dir)
	_, _ = io.Copy(io.Discard, out) // xz must not block on padding behind the archive's end
	if waitErr := cmd.Wait(); waitErr != nil {
		err = errors.Join(err, fmt.Errorf("%s: xz: %w", archive, waitErr))
	}
	return err
}

func untar(archive string, content io.Reader, dir string) error {
	for r := tar.NewReader(content); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", archive, err)
		}
		name := strings.TrimPrefix(h.Name, "./")
		if name == "" {
			continue
		}
		if !filepath.IsLocal(name) {
			return fmt.Errorf("%s: entry %q leads out of the folder", archive, h.Name)
		}
		target := filepath.Join(dir, name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(target, 0o755)
		case tar.TypeReg:
			err = writeFile(target, r, h.FileInfo().Mode())
		case tar.TypeSymlink:
			if !filepath.IsLocal(filepath.Join(filepath.Dir(name), h.Linkname)) {
				return fmt.Errorf("%s: link %q leads out of the folder", archive, h.Name)
			}
			err = errors.Join(os.MkdirAll(filepath.Dir(target), 0o755), os.Symlink(h.Linkname, target))
		}
		if err != nil {
			return fmt.Errorf("%s: %s: %w", archive, name, err)
		}
	}
}

// writeFile makes a file, and the folders above it, with mode 0644, or 0755 when anyone may execute it.
func writeFile(path string, content io.Reader, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	perm := fs.FileMode(0o644)
	if mode&0o111 != 0 {
		perm = 0o755
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}
