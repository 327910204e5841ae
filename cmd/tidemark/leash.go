package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"
)

// errLeash is why a process on a leash stops.
var errLeash = errors.New("standard input has ended")

// leashFlag adds --leash to a command.
func leashFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("leash", false, "stop when standard input ends, so that a process that started this one leaves no orphan")
}

// leashed returns a context that ends when in does, if on; in is read until then. The kernel closes a pipe when the process at
// its other end is gone, however it went.
func leashed(ctx context.Context, on bool, in io.Reader) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if on {
		go func() { // ends with the process: a read of standard input cannot be called off
			_, _ = io.Copy(io.Discard, in) // any end will do
			cancel(errLeash)
		}()
	}
	return ctx, cancel
}
