package config

import (
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"time"
)

// parseDuration reads a duration with its unit: 250ms, 5s, 2m, 1h30m, 7d.
func parseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("%q is not a number of days", days)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("it is not a number with a unit")
	}
	if d < 0 {
		return 0, fmt.Errorf("it is negative")
	}
	return d, nil
}

// sizeUnits are powers of 1024, as PostgreSQL's own settings have it.
var sizeUnits = []struct {
	name  string
	bytes int64
}{{"TB", 1 << 40}, {"GB", 1 << 30}, {"MB", 1 << 20}, {"kB", 1 << 10}, {"KB", 1 << 10}, {"B", 1}}

// parseSize reads a number of bytes with PostgreSQL's units: 512kB, 16MB, 1GB (powers of 1024).
func parseSize(text string) (int64, error) {
	for _, unit := range sizeUnits {
		digits, ok := strings.CutSuffix(text, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/unit.bytes {
			return 0, fmt.Errorf("%q is not a number of %s", digits, unit.name)
		}
		return n * unit.bytes, nil
	}
	return 0, fmt.Errorf("it has no unit")
}

// parseHost checks a host alone: what belongs into other keys is an error here, and not a name that is never found.
func parseHost(text string) error {
	switch {
	case text == "":
		return errEmpty
	case strings.HasPrefix(text, "/"), net.ParseIP(text) != nil:
		return nil
	case strings.ContainsAny(text, "@/ ,"):
		return fmt.Errorf("it is more than a host")
	case strings.Contains(text, ":"):
		return fmt.Errorf("the port has a key of its own")
	}
	return nil
}

// parseAddress checks host:port. The host may be empty (every interface), the port 0 (any free one).
func parseAddress(text string) error {
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return fmt.Errorf("it is not host:port")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q is not a port", port)
	}
	return nil
}
