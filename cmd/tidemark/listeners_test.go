package main

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestInheritSockets(t *testing.T) {
	me := strconv.Itoa(os.Getpid())
	for _, test := range []struct {
		name string
		env  map[string]string
		want string // the names, in order of descriptors
		says string // of the error
	}{
		{name: "none"},
		{name: "meant for another process", env: map[string]string{"LISTEN_PID": "1", "LISTEN_FDS": "1"}},
		{name: "systemd, one socket named after its unit", env: map[string]string{"LISTEN_PID": me, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "tidemark.socket"}, want: "clients"},
		{name: "systemd, two without names", env: map[string]string{"LISTEN_PID": me, "LISTEN_FDS": "2"}, want: "clients http"},
		{name: "systemd, named", env: map[string]string{"LISTEN_PID": me, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "http:clients"}, want: "http clients"},
		{name: "systemd, too many", env: map[string]string{"LISTEN_PID": me, "LISTEN_FDS": "3"}, says: "at most one for clients"},
		{name: "systemd, no number", env: map[string]string{"LISTEN_PID": me, "LISTEN_FDS": "x"}, says: "LISTEN_FDS"},
		{name: "handed over", env: map[string]string{"TIDEMARK_HANDOVER": "ready:clients:http"}, want: "ready clients http"},
		{name: "handed over after others", env: map[string]string{"TIDEMARK_HANDOVER": "ready:clients:http:earlier:earlier"}, want: "ready clients http earlier earlier"},
		{name: "handed over, systemd's", env: map[string]string{"TIDEMARK_HANDOVER": "ready:clients", "TIDEMARK_KEPT": "1"}, want: "ready clients"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var opened []string
			addresses := map[string]string{}
			s, err := inheritSockets(func(name string) string { return test.env[name] }, func(fd uintptr, name string) *os.File {
				if fd != uintptr(firstInherited+len(opened)) {
					t.Errorf("descriptor %d for socket %d", fd, len(opened))
				}
				opened = append(opened, name)
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				addresses[name] = l.Addr().String()
				f, err := l.(*net.TCPListener).File()
				if err != nil {
					t.Fatal(err)
				}
				if err := l.Close(); err != nil {
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
			if diff := cmp.Diff(test.want, strings.Join(opened, " ")); diff != "" {
				t.Error(diff)
			}
			if want := strings.HasPrefix(test.name, "systemd") || strings.HasSuffix(test.name, "systemd's"); s.kept != want {
				t.Errorf("the clients' socket is systemd's: %t", s.kept)
			}
			for _, name := range []string{clientsSocket, httpSocket} {
				l, err := s.listen(t.Context(), name, "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				if want := addresses[name]; want != "" && l.Addr().String() != want {
					t.Errorf("%s: listens on %s, not on the inherited %s", name, l.Addr(), want)
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}
			for _, pipe := range s.earlier.all() {
				_ = pipe.Close()
			}
		})
	}
}
