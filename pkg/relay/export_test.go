// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"golang.org/x/sys/unix"
)

// HoldAtMost has the relay take no more file descriptors when so many wait to be closed.
func (r *Relay) HoldAtMost(n int) { r.closer.most = n }

// TellNumbersOnly has the kernel say no more of senders than one before Linux 6.5: of
// one that has been reaped, that is what those before 6.16 say.
func (r *Relay) TellNumbersOnly() {
	for _, m := range r.members {
		_ = unix.SetsockoptInt(m.listener.fd, unix.SOL_SOCKET, unix.SO_PASSPIDFD, 0) // old ones do so anyway
	}
}
