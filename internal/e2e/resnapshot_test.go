package e2e

import (
	"os"
	"strings"
	"testing"
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
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	permitted := strings.Replace(string(text), "fix_replica_identity: true", "fix_replica_identity: true, resnapshot: true", 1)
	if err := os.WriteFile(s.config, []byte(permitted), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.projectors[0].start(); err != nil {
		t.Fatal(err)
	}
	if err := s.projectors[0].ready(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	s.touchEveryShard(conn)
	s.compareViews(conn, "*", lineViews)
}
