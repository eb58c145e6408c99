// SPDX-License-Identifier: Apache-2.0

package proc_test

import (
	"testing"

	"github.com/sdtrace/sdtrace/internal/proc"
)

func TestASocketIsFoundByItsWholeName(t *testing.T) {
	for line, want := range map[string]string{
		"0000000000000000: 00000002 00000000 00000000 0002 01 21044 /run/systemd/notify\n":     "/run/systemd/notify",
		"0000000000000000: 00000002 00000000 00000000 0002 01 21044 /tmp/a b/systemd/notify\n": "/tmp/a b/systemd/notify",
		"0000000000000000: 00000003 00000000 00000000 0001 03 21044\n":                         "",
		"Num       RefCount Protocol Flags    Type St Inode Path\n":                            "",
		"": "",
	} {
		if inode, got := proc.ParseNetUnix([]byte(line)); got != want || want != "" && inode != 21044 {
			t.Errorf("%q: socket %d at %q, want %q", line, inode, got, want)
		}
	}
}
