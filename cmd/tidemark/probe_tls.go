package main

import (
	"context"
	"fmt"
	"time"

	"github.com/tidemarkdb/tidemark/internal/config"
)

// tlsProbes look at the files that the proxy reads when it starts. They may lie on the proxy's machine only, so `tidemark check`
// alone, which also runs elsewhere, leaves them.
func tlsProbes(c *config.Config) []probe {
	if c.TLS == nil {
		return nil
	}
	return []probe{{name: "TLS " + c.TLS.Cert, run: func(context.Context) (string, error) { return probeTLS(c, time.Now()) }}}
}

func probeTLS(c *config.Config, now time.Time) (string, error) {
	t, err := c.ClientTLS(nil)
	if err != nil {
		return "", err
	}
	leaf := t.Certificates[0].Leaf
	switch {
	case now.Before(leaf.NotBefore):
		return "", fmt.Errorf("the certificate is not valid before %s", leaf.NotBefore.Format(time.DateTime))
	case now.After(leaf.NotAfter):
		return "", advice{fmt.Errorf("the certificate has expired: it was valid until %s", leaf.NotAfter.Format(time.DateTime)), "renew it; a running proxy takes the new files by itself"}
	}
	return "valid until " + leaf.NotAfter.Format(time.DateOnly), nil
}
