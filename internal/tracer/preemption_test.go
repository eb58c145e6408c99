// SPDX-License-Identifier: Apache-2.0

package tracer

import "testing"

// Two hooks do where nothing comes between them; a mode that is not known may preempt.
func TestTheKernelsModeOfPreemptionIsReadFromItsCommandLine(t *testing.T) {
	for line, want := range map[string]struct {
		mode       string
		preempting bool
	}{
		"quiet preempt=none":                   {"none", false},
		"preempt=full nosmt preempt=voluntary": {"voluntary", false},
		"preempt=voluntary preempt=full\n":     {"full", true},
		"preempt=lazy":                         {"lazy", true},
		"preempt=what-comes-next":              {"what-comes-next", true},
		"nopreempt=none":                       {"", true},
	} {
		if mode := preemptArgument(line); mode != want.mode || isPreempting(mode) != want.preempting {
			t.Errorf("%q: %q", line, mode)
		}
	}
}
