// SPDX-License-Identifier: Apache-2.0

// Package osthread lends out threads that may become different from the others of the process.
package osthread

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do calls f on a thread of its own and returns what f returns. The thread ends right
// after that, so f may leave it in other namespaces or with another umask (setns(2),
// unshare(2)).
//
// It is never the main thread, which is the whole process to those who look at it in /proc
// and which the runtime keeps when a goroutine ends that has locked it (runtime.mexit): it
// would hold a namespace, and what is in it, until the process ends.
func Do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != os.Getpid() {
			done <- f()
			return
		}
		defer runtime.UnlockOSThread()
		// It is locked meanwhile, so this starts on another one.
		done <- Do(f)
	}()
	return <-done
}
