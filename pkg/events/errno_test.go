// SPDX-License-Identifier: Apache-2.0

package events_test

import (
	"syscall"
	"testing"

	"github.com/sdtrace/sdtrace/pkg/events"
)

func TestErrnosHaveTheNumbersOfLinux(t *testing.T) {
	for name, want := range map[string]syscall.Errno{
		"EPERM": syscall.EPERM, "EAGAIN": syscall.EAGAIN, "EWOULDBLOCK": syscall.EAGAIN, "EDEADLK": syscall.EDEADLK,
		"EDEADLOCK": syscall.EDEADLK, "ELOOP": syscall.ELOOP, "ENOMSG": syscall.ENOMSG, "EBADSLT": syscall.EBADSLT,
		"EBFONT": syscall.EBFONT, "EOPNOTSUPP": syscall.EOPNOTSUPP, "ENOTSUP": syscall.EOPNOTSUPP,
		"EUCLEAN": syscall.EUCLEAN, "ERFKILL": syscall.ERFKILL, "EHWPOISON": 133,
	} {
		if got, ok := events.Errno(name); !ok || got != int(want) {
			t.Errorf("%s: %d, %v, want %d", name, got, ok, want)
		}
	}
	for _, name := range []string{"", "-", "eperm", "EPERM ", "1", "ENONE"} {
		if got, ok := events.Errno(name); ok {
			t.Errorf("%q is %d", name, got)
		}
	}
}
