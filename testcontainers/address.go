package testcontainers

import (
	"net"
	"strconv"
	"testing"

	"github.com/tidemarkdb/tidemark/internal/localstack"
)

// FreeAddress is an address of this machine, host:port, on which nothing listens, for a server that a test starts itself. No cluster and
// no other test takes it before the test has ended, and no outgoing connection is given its port: so a server may be stopped, or killed,
// and find its address still free, and where none is started connections are refused.
func FreeAddress(t testing.TB) string {
	t.Helper()
	port, release, err := localstack.ReservePort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
