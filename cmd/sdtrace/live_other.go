// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import (
	"context"
	"io"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sdtrace/sdtrace/pkg/capture"
)

// subcommands are those beside a capture: none where there is no Linux.
func subcommands() []*cobra.Command { return nil }

// capture fails, and says that -r works.
func (f *captureFlags) capture(ctx context.Context, _ *cobra.Command, _ *output) error {
	_, err := capture.Open(ctx, capture.Options{})
	return err
}

// endWithReader does nothing: the next write tells.
func endWithReader(context.Context, context.CancelFunc, io.Writer) {}

// dieOf does nothing: no other program was started.
func dieOf(syscall.Signal) {}

// giveUp has nothing to give up.
func giveUp() {}
