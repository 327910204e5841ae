package elastic_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tidemarkdb/tidemark/internal/localstack"
)

// stack has the real service; TestMain starts and stops it.
var stack *localstack.Stack

func TestMain(m *testing.M) {
	os.Exit(withStack(m))
}

func withStack(m *testing.M) (code int) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) // the first time it is downloaded
	defer cancel()
	var err error
	if stack, err = localstack.Start(ctx, localstack.Spec{Elasticsearch: true}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := stack.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}()
	return m.Run()
}

// server is the service's host:port.
func server(t *testing.T) string {
	t.Helper()
	return strings.TrimPrefix(stack.Elastic.URL, "http://")
}
