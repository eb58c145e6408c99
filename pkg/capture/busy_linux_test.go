// SPDX-License-Identifier: Apache-2.0

package capture

import "testing"

// A ring buffer of the default size is not one that is always full.
func TestNamesAreWaitedForWithTheDefaultRing(t *testing.T) {
	if busyAt(0) != busyAt(8<<20) || busyAt(0) == 0 {
		t.Errorf("busy at %d bytes", busyAt(0))
	}
}
