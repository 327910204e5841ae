package config

import (
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// UnixSocket is where clients of the same machine connect, beside Listen.
type UnixSocket struct {
	Dir   string // empty: nowhere
	Mode  fs.FileMode
	Group string // a name or a number; empty: that of the process
}

func (u *UnixSocket) fields() []field {
	return []field{
		{key: "dir", into: directory(&u.Dir), doc: "The directory of the socket, which must exist, for `host=/run/tidemark` in a connection string. The socket is named `.s.PGSQL.` and the port of `listen`; beside it is a file that locks it. Left out, there is none."},
		{key: "mode", into: fileMode(&u.Mode), def: "0777", doc: "The socket's permissions, octal, as of chmod. On Linux those may connect who may write to it, and search its directory."},
		{key: "group", into: text(&u.Group), doc: "The socket's group, a name or a number; that of the process when left out."},
	}
}

// UnixSocketPath is where libpq looks for the socket (UNIXSOCK_PATH), empty where there is none. The port of TCP tells apart the
// sockets of a directory.
func (c *Config) UnixSocketPath() string {
	_, text, _ := net.SplitHostPort(c.Listen)
	port, err := strconv.Atoi(text)
	if c.UnixSocket.Dir == "" || err != nil {
		return ""
	}
	return filepath.Join(c.UnixSocket.Dir, ".s.PGSQL."+strconv.Itoa(port))
}

// maxSocketPath is what the system takes, and libpq with it.
const maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

func (d *decoder) checkUnixSocket(c *Config) {
	u := &c.UnixSocket
	if u.Dir == "" {
		for _, key := range []string{"unix_socket.mode", "unix_socket.group"} {
			if d.present(key) && !d.present("unix_socket.dir") {
				d.addAt(key, "there is no unix_socket.dir")
			}
		}
		return
	}
	switch path := c.UnixSocketPath(); {
	case strings.HasSuffix(path, ".0"):
		d.addAt("unix_socket.dir", "the socket is named by the port of listen, which is 0; expected a port there")
	case len(path) > maxSocketPath:
		d.addAt("unix_socket.dir", "the socket's path would have %d bytes; expected at most %d", len(path), maxSocketPath)
	}
}

func directory(into *string) value {
	return value{kind: "directory", want: "an absolute path such as /run/tidemark", text: func(s string) error {
		switch {
		case !strings.HasPrefix(s, "/"):
			return fmt.Errorf("it is not absolute")
		case strings.ContainsRune(s, 0):
			return fmt.Errorf("it has a zero byte")
		}
		*into = s
		return nil
	}}
}

func fileMode(into *fs.FileMode) value {
	return value{kind: "octal number", want: "permissions as an octal number such as 0770", text: func(s string) error {
		n, err := strconv.ParseUint(strings.TrimPrefix(s, "0o"), 8, 32)
		if err != nil {
			return fmt.Errorf("it is not an octal number")
		}
		if n > 0o777 {
			return fmt.Errorf("it is out of range")
		}
		*into = fs.FileMode(n)
		return nil
	}}
}
