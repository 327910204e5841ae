package cqrs

import "errors"

// ErrPermanent marks an event that will never apply, however often it is tried.
var ErrPermanent = errors.New("permanent")

// ErrUnsupported marks a query that a view cannot answer.
var ErrUnsupported = errors.New("not supported by this read model")

// ErrStale marks a read whose view did not reach the session's mark in time.
var ErrStale = errors.New("read model has not caught up")
