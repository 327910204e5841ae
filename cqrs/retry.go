package cqrs

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Limits of the time between two attempts. Jitter of half of it keeps many workers from coming back at once.
const (
	retryFirst = 50 * time.Millisecond
	retryMost  = time.Second     // of the bus: asking is cheap, and sessions wait for it
	applyMost  = 5 * time.Second // of a store that refuses whole batches
)

// retry calls f until it succeeds, fails with an error that wraps ErrPermanent, or ctx ends. The first failure and the
// recovery are logged, and each attempt at debug level, so that an outage is two lines and not thousands.
func retry(ctx context.Context, log *slog.Logger, what string, f func() error) error {
	attempts, began := 0, time.Time{}
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := f()
		if errors.Is(err, ErrPermanent) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(newBackOff(retryMost)), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, next time.Duration) {
		if attempts++; attempts == 1 {
			began = time.Now()
			log.Warn(what+" failed, trying again until it works", "error", err)
			return
		}
		log.Debug(what+" failed again", "error", err, "attempts", attempts, "next", next)
	}))
	if err == nil && attempts > 0 {
		log.Info(what+" works again", "attempts", attempts+1, "after", time.Since(began).Round(time.Millisecond))
	}
	return err
}

func newBackOff(most time.Duration) *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{
		InitialInterval:     retryFirst,
		RandomizationFactor: backoff.DefaultRandomizationFactor,
		Multiplier:          2,
		MaxInterval:         most,
	}
}
