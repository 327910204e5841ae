package localstack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Tool returns the path of an installed program such as psql, pgbench or pgbouncer, and installs Debian's package for it when it is missing and
// this process may do so (root on a machine with apt-get). progress gets one line at a time and may be nil.
func Tool(ctx context.Context, program, debianPackage string, progress func(string)) (string, error) {
	f := &fetcher{say: func(_, detail string) {
		if progress != nil {
			progress(detail)
		}
	}}
	return f.tool(ctx, program, debianPackage)
}

// sbin holds programs that are not on every user's PATH.
var sbin = []string{"/usr/sbin", "/usr/local/sbin", "/sbin"}

func lookPath(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		return path, nil
	}
	for _, dir := range sbin {
		if path, sbinErr := exec.LookPath(filepath.Join(dir, program)); sbinErr == nil {
			return path, nil
		}
	}
	return "", err
}

func (f *fetcher) tool(ctx context.Context, program, debianPackage string) (string, error) {
	if path, err := lookPath(program); err == nil {
		return path, nil
	}
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("localstack: %s is not installed: run `sudo apt-get install %s`, or put %s on the PATH", program, debianPackage, program)
	}
	if err := f.aptInstall(ctx, debianPackage); err != nil {
		return "", fmt.Errorf("localstack: %s is not installed and apt-get cannot bring it, install package %s: %w", program, debianPackage, err)
	}
	path, err := lookPath(program)
	if err != nil {
		return "", fmt.Errorf("localstack: package %s was installed without %s: %w", debianPackage, program, err)
	}
	return path, nil
}

// aptInstall installs packages as root, without starting the services in them.
func (f *fetcher) aptInstall(ctx context.Context, packages ...string) error {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("no apt-get on this machine")
	}
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	unlock, err := f.lock(ctx, filepath.Join(cache, "apt.lock"), packages[0])
	if err != nil {
		return err
	}
	defer unlock()
	f.say(packages[0], "apt-get install "+strings.Join(packages, " "))
	install := append([]string{"install", "-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"}, packages...)
	if _, err := f.output(ctx, "", "apt-get", install...); err == nil {
		return nil
	}
	// The lists may be older than the archive, or missing.
	if _, err := f.output(ctx, "", "apt-get", "update", "-q"); err != nil {
		return err
	}
	_, err = f.output(ctx, "", "apt-get", install...)
	return err
}

// aptUnpack downloads packages with what they depend on and unpacks them below dir, for users who cannot install.
func (f *fetcher) aptUnpack(ctx context.Context, dir string, packages ...string) error {
	for _, program := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("no %s on this machine", program)
		}
	}
	f.say(packages[0], "apt-get download "+strings.Join(packages, " "))
	list, err := f.output(ctx, "", "apt-cache", append([]string{
		"depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts",
		"--no-breaks", "--no-replaces", "--no-enhances", "--no-pre-depends",
	}, packages...)...)
	if err != nil {
		return err
	}
	debs := filepath.Join(dir, "debs")
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return err
	}
	for name := range strings.Lines(list) {
		name = strings.TrimSpace(name)
		// Lines that begin in the first column are packages; in brackets stand virtual ones.
		if name == "" || strings.ContainsAny(name, "<>: |") || f.installed(ctx, name) {
			continue
		}
		if _, err := f.output(ctx, debs, "apt-get", "download", "-q", name); err != nil {
			return err
		}
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if _, err := f.output(ctx, "", "dpkg-deb", "-x", file, dir); err != nil {
			return err
		}
	}
	return os.RemoveAll(debs)
}

func (f *fetcher) installed(ctx context.Context, name string) bool {
	status, err := f.output(ctx, "", "dpkg-query", "-W", "-f", "${db:Status-Status}", name)
	return err == nil && status == "installed"
}

// output runs a command and returns what it printed; a failure quotes the last line of its errors.
func (f *fetcher) output(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
		return "", fmt.Errorf("%s %s: %w: %s", program, args[0], err, lines[len(lines)-1])
	}
	return out.String(), nil
}
