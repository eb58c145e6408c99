// SPDX-License-Identifier: Apache-2.0

package await

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
)

// failing notes why a test failed, and stands in for it.
type failing struct {
	testing.TB
	why string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) { f.why = fmt.Sprintf(format, args...) }

func TestUntilReturnsWhenTheConditionHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		Until(t, "the third question", func() bool { asked++; return asked == 3 })
		if asked != 3 {
			t.Errorf("asked %d times", asked)
		}
	})
}

func TestWhatDoesNotComeFailsTheTest(t *testing.T) {
	for what, wait := range map[string]func(t testing.TB){
		"gave up waiting: it":      func(t testing.TB) { Until(t, "it", func() bool { return false }) },
		"gave up waiting: a value": func(t testing.TB) { Receive(t, "a value", make(chan int)) },
		"will not come any more: the last": func(t testing.TB) {
			closed := make(chan int)
			close(closed)
			Receive(t, "the last", closed)
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &failing{TB: t}
			if wait(f); f.why != what {
				t.Errorf("failed with %q, want %q", f.why, what)
			}
		})
	}
}

func TestReceiveReturnsWhatComes(t *testing.T) {
	ch := make(chan string, 1)
	ch <- "it"
	if got := Receive(t, "it", ch); got != "it" {
		t.Errorf("got %q", got)
	}
}

func TestTheContextEndsAfterPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := Context(t)
		if <-ctx.Done(); !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Errorf("ended by %v", ctx.Err())
		}
	})
}
