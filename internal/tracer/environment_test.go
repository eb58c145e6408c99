// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"testing"

	"github.com/sdtrace/sdtrace/vmtest"
)

func TestProcessesAreListedTwiceAfterEachNewOne(t *testing.T) {
	vmtest.Natively(t, "no kernel is asked")
	due := scanDue{newest: "7"}
	for i, step := range []struct {
		newest string
		want   bool
	}{
		{"7", true},
		{"7", true},
		{"7", false},
		{"7", false}, // what began during the first look, and execve
		{"8", true},
		{"8", true},
		{"8", false},
		{"9", true},
		{"10", true},
		{"10", true},
		{"10", false},
		{"", true},
		{"", true},
		{"", true}, // unknown
		{"10", true},
		{"10", true},
		{"10", false},
	} {
		if got := due.now(step.newest); got != step.want {
			t.Errorf("look %d, when the newest process is %q: %v", i, step.newest, got)
		}
	}
}

func TestTheNewestProcessIsKnown(t *testing.T) {
	if newest := newestProcess(); newest == "" || newest[0] < '1' || newest[0] > '9' {
		t.Errorf("%q is no number of a process", newest)
	}
}
