package e2e

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestRowsDeletedInAGapAreSwept loses the slots while no projector runs. Nothing tells what was deleted meanwhile, but the new snapshot's end:
// afterwards the read models have what PostgreSQL has, and no row more.
func TestRowsDeletedInAGapAreSwept(t *testing.T) {
	sp := linesSpec
	sp.projectors = 1
	s := start(t, sp)
	conn := s.connect()
	must(t, conn, waits)
	for customer := range int64(40) {
		for id := range int64(3) {
			must(t, conn, upsertLine, customer, id, int64(1))
		}
	}
	s.compareViews(conn, "*", lineViews)

	s.projectors[0].kill()
	s.dropSlots()
	for customer := range int64(40) {
		must(t, conn, "DELETE FROM lines WHERE customer_id = $1 AND id = $2", customer, customer%3)
		must(t, conn, upsertLine, customer, (customer+1)%3, int64(2))
	}
	must(t, conn, upsertLine, int64(41), int64(0), int64(1))
	s.configure("fix_replica_identity: true", "fix_replica_identity: true, resnapshot: true")
	s.again(s.projectors[0])
	s.touchEveryShard(conn)
	s.compareViews(conn, "*", lineViews)
}

// TestStoresThatKnowNothingAreFilled puts an index and a prefix in the place of others, for which offsets were committed long ago.
func TestStoresThatKnowNothingAreFilled(t *testing.T) {
	sp := linesSpec
	sp.projectors = 1
	s := start(t, sp)
	conn := s.connect()
	must(t, conn, waits)
	for customer := range int64(40) {
		must(t, conn, upsertLine, customer, int64(1), int64(1))
	}
	s.compareViews(conn, "*", lineViews)
	time.Sleep(2 * time.Second) // offsets are committed

	for _, p := range []*process{s.projectors[0], s.proxy} {
		p.kill()
	}
	s.configure("index: "+s.database, "index: other"+s.database)
	s.configure(`prefix: "`+s.database, `prefix: "other`+s.database)
	s.again(s.proxy)
	s.again(s.projectors[0])
	conn = s.connect()
	s.touchEveryShard(conn)
	s.compareViews(conn, "*", lineViews)
}

// configure changes the file.
func (s *system) configure(from, to string) {
	s.t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	changed := strings.Replace(string(text), from, to, 1)
	if changed == string(text) {
		s.t.Fatalf("the file has no %q:\n%s", from, text)
	}
	if err := os.WriteFile(s.config, []byte(changed), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// again starts a process that was killed.
func (s *system) again(p *process) {
	s.t.Helper()
	if err := p.start(); err != nil {
		s.t.Fatal(err)
	}
	if err := p.ready(within(s.t, patience)); err != nil {
		s.t.Fatal(err)
	}
}
