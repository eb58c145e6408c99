// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vmtest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// KernelAtLeast reports whether the release that uname(2) gives is that or a later one. It panics
// where the release does not begin with two numbers.
func KernelAtLeast(major, minor int) bool {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		panic(err)
	}
	release := unix.ByteSliceToString(name.Release[:])
	var ma, mi int
	if _, err := fmt.Sscanf(release, "%d.%d", &ma, &mi); err != nil {
		panic(fmt.Errorf("release %q: %w", release, err))
	}
	return ma > major || ma == major && mi >= minor
}

// MayMiss reports whether this kernel may miss a datagram, and count it: an emulated one that
// preempts itself skips a program now and then (docs/design.md).
func MayMiss() bool { return !Native() && KernelAtLeast(6, 13) }
