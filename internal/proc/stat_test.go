// SPDX-License-Identifier: Apache-2.0

package proc_test

import (
	"os"
	"strings"
	"testing"

	"github.com/sdtrace/sdtrace/internal/proc"
)

func TestANameOfAnyBytesHidesNothing(t *testing.T) {
	const rest = " S 1 3 3 0 -1 4 0 0 0 0 5 6 0 0 20 0 1 0 4711 0 0"
	for _, comm := range []string{"web", "", "a) S 1 (b", ") ) )", "((", "two words"} {
		got, ok := proc.ParseStat([]byte("7 (" + comm + ")" + rest))
		if !ok || got != (proc.Stat{Comm: comm, State: 'S', PPID: 1, StartTicks: 4711, CPUTicks: 11}) || !got.StartedAt(47_110_000_001) || got.StartedAt(47_120_000_000) {
			t.Errorf("%q is read as %+v, %v", comm, got, ok)
		}
	}
	for _, bad := range []string{"", "7", "7 (web", "7 web)", ")(", "7 (web) S 1 2", strings.Replace("7 (web)"+rest, "4711", "x", 1)} {
		if got, ok := proc.ParseStat([]byte(bad)); ok {
			t.Errorf("%q is read as %+v", bad, got)
		}
	}
}

func TestTheFileOfThisProcessIsRead(t *testing.T) {
	content, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := proc.ParseStat(content); !ok || got.Comm+"\n" != string(comm) || got.StartTicks == 0 {
		t.Errorf("read %+v, %v", got, ok)
	}
}
