// SPDX-License-Identifier: Apache-2.0

// Package await is how tests wait. A test waits for a condition, never for a time, and no test
// asserts how long something took: a busy machine is no defect. The linter holds tests to that
// by refusing package time's functions that sleep, time or measure everywhere but here.
package await

import (
	"context"
	"testing"
	"time"
)

// Patience is how long a test waits for what has to come. It only bounds how long a failing
// test takes: an emulated machine on a slow computer, beside others, can take minutes for what takes milliseconds.
const Patience = 10 * time.Minute

// longest is the longest pause between two questions, when the first have been answered by no.
const longest = 16 * time.Millisecond

// Until calls condition until it holds, with a pause of 1 to 16 ms in between, and fails the
// test when it does not hold within [Patience]. The message calls the condition what.
func Until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	if !Holds(condition) {
		t.Fatalf("gave up waiting: %s", what)
	}
}

// UntilSeldomAsked is [Until] for a condition that takes much of a processor to look at: the pauses grow to a quarter of
// a second.
func UntilSeldomAsked(t testing.TB, what string, condition func() bool) {
	t.Helper()
	if !HoldsWithin(Patience, condition) {
		t.Fatalf("gave up waiting: %s", what)
	}
}

// Holds is [Until] where there is no test to fail, as in a process that a test has started: it
// returns false when the condition does not hold within [Patience].
func Holds(condition func() bool) bool { return holds(condition, Patience, longest) }

// HoldsWithin is to [UntilSeldomAsked] as Holds is to [Until], with a patience of its own: for what a test brings about
// once more when it does not come.
func HoldsWithin(patience time.Duration, condition func() bool) bool {
	return holds(condition, patience, time.Second/4)
}

func holds(condition func() bool, patience, longest time.Duration) bool {
	began := time.Now()
	for pause := time.Millisecond; !condition(); pause = min(2*pause, longest) {
		if time.Since(began) > patience {
			return false
		}
		time.Sleep(pause)
	}
	return true
}

// Receive returns the next value of ch, and fails the test when ch is closed or nothing comes
// within [Patience]. The message calls the value what.
func Receive[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	limit := time.NewTimer(Patience)
	defer limit.Stop()
	select {
	case value, ok := <-ch:
		if !ok {
			t.Fatalf("will not come any more: %s", what)
		}
		return value
	case <-limit.C:
		t.Fatalf("gave up waiting: %s", what)
	}
	return *new(T)
}

// Context returns a context that ends with the test, and after [Patience].
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	t.Cleanup(cancel)
	return ctx
}

// Pass returns when d has passed. It is for a fault that lasts, such as a reader that hangs, and
// for two moments that a clock must tell apart. It is never for something that takes time.
func Pass(d time.Duration) { time.Sleep(d) }
