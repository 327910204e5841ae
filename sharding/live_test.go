package sharding_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidemarkdb/tidemark/sharding"
	"github.com/tidemarkdb/tidemark/testcontainers"
)

// versions are the oldest and the newest PostgreSQL that Tidemark is for. Placement must not differ between them.
var versions = []string{"15", "18"}

func connect(t *testing.T, version string) (context.Context, *pgx.Conn) {
	t.Helper()
	c := testcontainers.New(t, testcontainers.Spec{Shards: 1, PostgresVersion: version})
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(stop)
	conn, err := pgx.Connect(ctx, c.Shards[0].Primary.DSN(c.Database(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // the server goes away with the test
	return ctx, conn
}

// TestVectorsAreLive runs testdata/vectors.sql again: each version of PostgreSQL must print testdata/vectors.txt.
func TestVectorsAreLive(t *testing.T) {
	script, err := os.ReadFile("testdata/vectors.sql")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			ctx, conn := connect(t, version)
			results, err := conn.PgConn().Exec(ctx, string(script)).ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, r := range results {
				for _, row := range r.Rows {
					for i, v := range row {
						if i > 0 {
							got.WriteByte('|')
						}
						got.Write(v)
					}
					got.WriteByte('\n')
				}
			}
			if d := cmp.Diff(string(want), got.String()); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestRandomValuesAreLive places random values and asks satisfies_hash_partition about each.
func TestRandomValuesAreLive(t *testing.T) {
	const count = 300
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	digits := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('0' + rnd.IntN(10)*rnd.IntN(2)) // half of them zeros
		}
		return string(b)
	}
	types := []struct {
		typ  sharding.KeyType
		make func() string
	}{
		{sharding.Int2, func() string { return fmt.Sprint(int16(rnd.Uint32())) }},
		{sharding.Int4, func() string { return fmt.Sprint(int32(rnd.Uint32())) }},
		{sharding.Int8, func() string { return fmt.Sprint(int64(rnd.Uint64()) >> rnd.IntN(64)) }},
		{sharding.Text, func() string { return strings.Repeat("ä", rnd.IntN(3)) + digits(rnd.IntN(40)) }},
		{sharding.UUID, func() string {
			return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", rnd.Uint32(), uint16(rnd.Uint32()), uint16(rnd.Uint32()), uint16(rnd.Uint32()), rnd.Uint64()>>16)
		}},
		{sharding.Numeric, func() string {
			s := []string{"", "-"}[rnd.IntN(2)] + digits(1+rnd.IntN(20)) + "." + digits(rnd.IntN(20))
			if rnd.IntN(3) == 0 {
				s += fmt.Sprintf("e%d", rnd.IntN(30)-15)
			}
			return s
		}},
		{sharding.Date, func() string {
			return time.Unix(rnd.Int64N(200000000000)-50000000000, 0).UTC().Format("2006-01-02")
		}},
		{sharding.Timestamp, func() string {
			return time.UnixMicro(rnd.Int64N(200000000000000000) - 50000000000000000).UTC().Format("2006-01-02 15:04:05.999999")
		}},
		{sharding.Timestamptz, func() string {
			zone := time.FixedZone("", (rnd.IntN(27)-13)*3600+rnd.IntN(4)*900)
			return time.UnixMicro(rnd.Int64N(200000000000000000) - 50000000000000000).In(zone).Format("2006-01-02 15:04:05.999999-07:00")
		}},
	}
	m, err := sharding.New(sharding.Definition{Shards: []sharding.Shard{{Name: "a", Buckets: []sharding.Range{{First: 0, Last: 4095}}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			ctx, conn := connect(t, version)
			for _, c := range types {
				if _, err := conn.Exec(ctx, fmt.Sprintf("CREATE TABLE part_%d (k %s) PARTITION BY HASH (k)", c.typ, c.typ)); err != nil {
					t.Fatal(err)
				}
				check := fmt.Sprintf("SELECT satisfies_hash_partition('part_%d'::regclass, 4096, $1, $2::text::%s)", c.typ, c.typ)
				for range count {
					value := c.make()
					h, err := sharding.Hash(c.typ, []byte(value), sharding.TextFormat)
					if err != nil {
						t.Fatalf("%s %q: %v", c.typ, value, err)
					}
					var yes bool
					if err := conn.QueryRow(ctx, check, m.Bucket(h), value).Scan(&yes); err != nil {
						t.Fatalf("%s %q: %v", c.typ, value, err)
					}
					if !yes {
						t.Errorf("%s %q is not in bucket %d", c.typ, value, m.Bucket(h))
					}
				}
			}
		})
	}
}
