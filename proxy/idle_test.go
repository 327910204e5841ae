package proxy_test

import (
	"bufio"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	osexec "os/exec"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/tidemarkdb/tidemark/internal/wire"
	"github.com/tidemarkdb/tidemark/proxy"
)

// quickVerifier makes logins cheap for the test: its one round of hashing says nothing about Tidemark.
func quickVerifier(t *testing.T, password string) wire.Verifier {
	t.Helper()
	salt := []byte("0123456789abcdef")
	salted, err := pbkdf2.Key(sha256.New, password, salt, 1, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	v, err := wire.ParseVerifier(fmt.Sprintf("SCRAM-SHA-256$1:%s$%s:%s", b64(salt), b64(stored[:]), b64(mac("Server Key"))))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

const (
	idleClients     = 10_000
	idleAddrEnv     = "TIDEMARK_TEST_IDLE_ADDR"
	idleClientLimit = 8 << 10 // bytes resident per idle plaintext client, what the kernel holds apart
)

// Ten thousand clients that have each run a statement and now do nothing take little memory, and each is served again. They
// are in a process of their own, which is this test too: one process has descriptors for one end of each only.
func TestTenThousandIdleClients(t *testing.T) {
	if addr := os.Getenv(idleAddrEnv); addr != "" {
		beIdle(t, addr)
		return
	}
	n := idleClients
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < idleClients+500 {
		n = int(limit.Max) - 500
		t.Logf("only %d clients: the limit of descriptors is %d", n, limit.Max)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, fixtureSpec{shards: 1, pool: 2, config: func(c *proxy.Config) {
		c.Users[0].Secret, c.MaxClients = proxy.VerifierSecret(quickVerifier(t, clientPassword)), n
	}})
	p := f.run(t, "epoll")
	heapBefore, residentBefore := footprint()

	child := osexec.Command(os.Args[0], "-test.run=^TestTenThousandIdleClients$", "-test.timeout=5m")
	child.Env = append(os.Environ(), idleAddrEnv+"="+p.addr, "TIDEMARK_TEST_IDLE_N="+strconv.Itoa(n))
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	expect := func(want string) {
		t.Helper()
		for lines.Scan() {
			if lines.Text() == want {
				return
			}
		}
		t.Fatalf("the clients have ended before they were %s: %v", want, child.Wait())
	}
	expect("idle")
	if got := p.proxy.Clients(); got != n {
		t.Errorf("%d clients, want %d", got, n)
	}
	heap, resident := footprint()
	perHeap, perResident := (heap-heapBefore)/n, (resident-residentBefore)/n
	t.Logf("%d idle clients: %d bytes of heap and stacks, %d bytes resident each", n, perHeap, perResident)
	if perResident > idleClientLimit || perHeap > idleClientLimit {
		t.Errorf("more than %d bytes per idle client: what does an idle session hold?", idleClientLimit)
	}
	if file := os.Getenv("TIDEMARK_TEST_HEAP_PROFILE"); file != "" {
		w, err := os.Create(file)
		if err == nil {
			err = pprof.Lookup("heap").WriteTo(w, 0)
		}
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := io.WriteString(in, "again\n"); err != nil {
		t.Fatal(err)
	}
	expect("served")
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
}

// footprint is the memory of this process after a collection, in bytes: on the heap and on stacks, and resident.
func footprint() (heap, resident int) {
	runtime.GC()
	runtime.GC() // stacks shrink, and pools empty, over two
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return int(m.HeapAlloc + m.StackInuse), 0
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(kb, "kB")))
			if err == nil {
				resident = n << 10
			}
		}
	}
	return int(m.HeapAlloc + m.StackInuse), resident
}

// beIdle is the clients' process: it says when all are idle, has each run a statement when it is told, and ends.
func beIdle(t *testing.T, addr string) {
	n, err := strconv.Atoi(os.Getenv("TIDEMARK_TEST_IDLE_N"))
	if err != nil {
		t.Fatal(err)
	}
	conns := make([]net.Conn, n)
	each := func(f func(i int) error) {
		var g errgroup.Group
		g.SetLimit(16)
		for i := range conns {
			g.Go(func() error { return f(i) })
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	each(func(i int) (err error) {
		if conns[i], err = plainLogin(addr); err != nil {
			return fmt.Errorf("client %d: %w", i, err)
		}
		return oneQuery(conns[i], i)
	})
	fmt.Println("idle")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	each(func(i int) error { return oneQuery(conns[i], i) })
	fmt.Println("served")
	for _, c := range conns {
		_ = c.Close()
	}
}

// plainLogin logs in with as little as it takes.
func plainLogin(addr string) (net.Conn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	scram, err := wire.NewSCRAMClient(clientUser, clientPassword, nil)
	if err != nil {
		return nil, err
	}
	out := wire.AppendStartupMessage(nil, wire.Protocol30, []wire.Parameter{{Name: "user", Value: clientUser}, {Name: "database", Value: "shop"}})
	for {
		if _, err := c.Write(out); err != nil {
			return nil, err
		}
		typ, body, err := oneMessage(c)
		if err != nil {
			return nil, err
		}
		if typ != wire.MsgAuthentication {
			return nil, fmt.Errorf("message %q: %s", typ, body)
		}
		code, data, err := wire.DecodeAuthentication(body)
		if err != nil {
			return nil, err
		}
		out = nil
		switch code {
		case wire.AuthSASL:
			out = wire.AppendSASLInitial(nil, scram.Mechanism(), scram.First())
		case wire.AuthSASLContinue:
			final, err := scram.Final(data)
			if err != nil {
				return nil, err
			}
			out = wire.AppendSASLResponse(nil, final)
		case wire.AuthOK:
			return c, untilReady(c, "")
		}
	}
}

func oneQuery(c net.Conn, i int) error {
	if _, err := c.Write(wire.AppendQuery(nil, "select "+strconv.Itoa(i))); err != nil {
		return err
	}
	return untilReady(c, strconv.Itoa(i))
}

// untilReady takes messages up to ReadyForQuery; one row must hold the value unless that is empty.
func untilReady(c net.Conn, value string) error {
	seen := value == ""
	for {
		typ, body, err := oneMessage(c)
		switch {
		case err != nil:
			return err
		case typ == wire.MsgErrorResponse:
			return fmt.Errorf("%q", body)
		case typ == wire.MsgDataRow:
			row := wire.DataRow(body)
			row.Next()
			seen = seen || string(row.Value()) == value
		case typ == wire.MsgReadyForQuery && !seen:
			return fmt.Errorf("no row with %s", value)
		case typ == wire.MsgReadyForQuery:
			return nil
		}
	}
}

func oneMessage(c net.Conn) (typ byte, body []byte, err error) {
	head := make([]byte, wire.HeaderLen)
	if _, err := io.ReadFull(c, head); err != nil {
		return 0, nil, err
	}
	typ, size, err := wire.Header(head, wire.Backend)
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, size-wire.HeaderLen)
	_, err = io.ReadFull(c, body)
	return typ, body, err
}
