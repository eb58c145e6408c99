// SPDX-License-Identifier: Apache-2.0

package tracer_test

import "golang.org/x/sys/unix"

// compatMemory is not there: a 64-bit program cannot make 32-bit system calls here.
type compatMemory struct{}

func (w *worker) sendCompat(step) outcome { return outcome{Errno: unix.ENOSYS} }
