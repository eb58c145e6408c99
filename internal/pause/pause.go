// SPDX-License-Identifier: Apache-2.0

// Package pause waits, and can be told not to.
package pause

import (
	"context"
	"time"
)

// For waits for a span of time, and reports whether the context goes on: it returns false at once when that ends.
func For(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
