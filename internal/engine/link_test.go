package engine

import "testing"

// A client that always has something under way never lets the queue run empty. It stays as long as what is owed.
func TestQueueOfAnEndlessPipeline(t *testing.T) {
	l := &Link{}
	for i := range uint64(100_000) {
		l.Expect(Expect{Kind: Execute, Statement: i})
		if i == 50_000 {
			l.EndCopy() // what is queued now stands before a CopyDone
		}
		if i >= 10 {
			if e := l.first(); e.Statement != i-10 {
				t.Fatalf("reply %d is first, want %d", e.Statement, i-10)
			}
			if before := i > 50_000 && i-10 <= 50_000; before != (l.ended != 0) && i > 50_000 {
				t.Fatalf("after %d requests: CopyDone is ahead: %v", i, l.ended != 0)
			}
			l.done()
		}
	}
	if l.Owed() != 10 || cap(l.queue) > 100 {
		t.Errorf("%d replies are owed in a queue of %d, want 10 in at most 100", l.Owed(), cap(l.queue))
	}
}
