// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// SkipEmulated leaves out in a machine that is emulated what takes long and asks
// nothing of its kernel.
func SkipEmulated(t *testing.T) {
	t.Helper()
	if os.Getenv("SDTRACE_VM") != "" {
		t.Skip("not declared: asks nothing of the kernel")
	}
}

// TellNumbersOnly has the kernel say no more of senders than one before Linux 6.5: of
// one that has been reaped, that is what those before 6.16 say.
func (r *Relay) TellNumbersOnly() {
	for _, m := range r.members {
		_ = unix.SetsockoptInt(m.listener.fd, unix.SOL_SOCKET, unix.SO_PASSPIDFD, 0) // old ones do so anyway
	}
}
