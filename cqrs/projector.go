package cqrs

import "context"

// Projector applies events to one read model's store. Apply is called with events of any keys, in order per key, and
// is idempotent and monotonic: an event older than what the store holds for its key changes nothing, deletes included.
//
// It returns one error per event (nil slice: all applied), so that one bad document does not fail its batch. An error
// that wraps ErrPermanent goes to the dead-letter queue; any other is retried. Events applied before Apply returns are
// durable in the store and readable by key.
type Projector interface {
	Apply(ctx context.Context, events []Event) []error

	// Knows says whether the store was told to Remember a partition ("shop.public.orders/3"), and has not been emptied or exchanged for another
	// since. A partition that it does not know is read from its beginning.
	Knows(ctx context.Context, partition string) (bool, error)
	Remember(ctx context.Context, partition string) error
}
