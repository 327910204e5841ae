package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestInheritSockets(t *testing.T) {
	me := strconv.Itoa(os.Getpid())
	for _, test := range []struct {
		name  string
		env   map[string]string
		local int    // the descriptor of these that is a Unix socket
		want  string // of descriptors from 3 on: what each is taken for
		says  string // of the error
	}{
		{name: "none"},
		{name: "meant for another process", env: map[string]string{"LISTEN_PID": "1", "LISTEN_FDS": "1"}},
		{name: "systemd, one socket named after its unit", env: map[string]string{"LISTEN_PID": me, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "tidemark.socket"}, want: "clients"},
		{name: "systemd, two without names", env: map[string]string{"LISTEN_PID": me, "LISTEN_FDS": "2"}, want: "clients http"},
		{name: "systemd, two without names, the second a Unix socket", env: map[string]string{"LISTEN_PID": me, "LISTEN_FDS": "2"}, local: 4, want: "clients clients"},
		{name: "systemd, three without names", env: map[string]string{"LISTEN_PID": me, "LISTEN_FDS": "3"}, local: 3, want: "clients http", says: "at most one for HTTP"},
		{name: "systemd, named", env: map[string]string{"LISTEN_PID": me, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "http:clients"}, want: "http clients"},
		{name: "systemd, several of one unit", env: map[string]string{"LISTEN_PID": me, "LISTEN_FDS": "3", "LISTEN_FDNAMES": "clients:clients:http"}, local: 4, want: "clients clients http"},
		{name: "systemd, HTTP twice", env: map[string]string{"LISTEN_PID": me, "LISTEN_FDS": "3", "LISTEN_FDNAMES": "http:clients:http"}, says: "at most one for HTTP"},
		{name: "systemd, no number", env: map[string]string{"LISTEN_PID": me, "LISTEN_FDS": "x"}, says: "LISTEN_FDS"},
		{name: "handed over", env: map[string]string{"TIDEMARK_HANDOVER": "ready:clients:http"}, want: "ready clients http"},
		{name: "handed over, with a Unix socket", env: map[string]string{"TIDEMARK_HANDOVER": "ready:clients:clients:http:lock"}, local: 5, want: "ready clients clients http lock"},
		{name: "handed over after others", env: map[string]string{"TIDEMARK_HANDOVER": "ready:clients:http:earlier:earlier"}, want: "ready clients http earlier earlier"},
		{name: "handed over after many", env: map[string]string{"TIDEMARK_HANDOVER": "ready:clients:http" + strings.Repeat(":earlier", maxEarlier)}, want: "ready clients http" + strings.Repeat(" earlier", maxEarlier)},
		{name: "handed over, systemd's", env: map[string]string{"TIDEMARK_HANDOVER": "ready:clients", "TIDEMARK_KEPT": "1"}, want: "ready clients"},
	} {
		t.Run(test.name, func(t *testing.T) {
			opened := map[string]int{} // descriptors by address
			next := firstInherited
			s, err := inheritSockets(func(name string) string { return test.env[name] }, func(fd uintptr, name string) *os.File {
				if fd != uintptr(next) {
					t.Errorf("descriptor %d is opened, not %d", fd, next)
				}
				l, err := listenFor(t, next == test.local)
				if err != nil {
					t.Fatal(err)
				}
				opened[l.Addr().String()] = next
				next++
				f, err := l.(interface{ File() (*os.File, error) }).File()
				if err := errors.Join(err, l.Close()); err != nil {
					t.Fatal(err)
				}
				return f
			})
			if test.says != "" {
				if err == nil || !strings.Contains(err.Error(), test.says) {
					t.Errorf("error %v, want one that says %q", err, test.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			taken := make([]string, next-firstInherited)
			for _, l := range s.clients {
				taken[opened[l.Addr().String()]-firstInherited] = clientsSocket
			}
			if s.http != nil {
				taken[opened[s.http.Addr().String()]-firstInherited] = httpSocket
			}
			for i, name := range strings.Fields(test.want) {
				if want := name == clientsSocket || name == httpSocket; want && taken[i] != name {
					t.Errorf("descriptor %d is for %s, want %s", firstInherited+i, taken[i], name)
				}
			}
			if s.ready != nil { // the process that hands over waits at its other end, and drains the longest
				if _, err := s.ready.Stat(); err != nil || s.earlier.all()[len(s.earlier.all())-1] != s.ready {
					t.Errorf("the pipe to the process before: %v", err)
				}
			}
			if (s.lock != nil) != strings.HasSuffix(test.want, lockFile) {
				t.Errorf("lock %v", s.lock)
			}
			if want := test.want != "" && strings.HasPrefix(test.name, "systemd") || strings.HasSuffix(test.name, "systemd's"); s.kept != want {
				t.Errorf("the clients' sockets are systemd's: %t", s.kept)
			}
			inherited := fmt.Sprint(s.addresses())
			if err := s.listen(t.Context(), "127.0.0.1:0", unixSocket{}); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(s.addresses()); got != inherited && strings.Contains(test.want, clientsSocket) {
				t.Errorf("listens on %s, not on the inherited %s alone", got, inherited)
			}
			l, err := s.listenHTTP(t.Context(), "127.0.0.1:0")
			if err := errors.Join(err, l.Close(), s.close()); err != nil {
				t.Error(err)
			}
			for _, pipe := range s.earlier.all() {
				_ = pipe.Close()
			}
		})
	}
}

// listenFor opens a socket, whose file stays behind.
func listenFor(t *testing.T, local bool) (net.Listener, error) {
	if !local {
		return net.Listen("tcp", "127.0.0.1:0")
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err == nil {
		l.(*net.UnixListener).SetUnlinkOnClose(false)
	}
	return l, err
}
