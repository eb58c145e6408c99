// SPDX-License-Identifier: Apache-2.0

package osthread_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/osthread"
)

func TestAThreadApartIsNeverTheMainThread(t *testing.T) {
	// All that are idle are taken, and the main one is among them.
	const atOnce = 64
	var all, ended sync.WaitGroup
	all.Add(atOnce)
	for range atOnce {
		ended.Go(func() {
			_ = osthread.Do(func() error {
				all.Done()
				all.Wait()
				if unix.Gettid() == os.Getpid() {
					t.Error("runs on the main thread")
				}
				return nil
			})
		})
	}
	ended.Wait()
}

func TestAThreadApartEndsWithWhatItWasTakenFor(t *testing.T) {
	said := errors.New("said")
	var tid int
	err := osthread.Do(func() error {
		tid = unix.Gettid()
		return said
	})
	if !errors.Is(err, said) {
		t.Errorf("got error %v, want what the function returned", err)
	}
	task := filepath.Join("/proc/self/task", strconv.Itoa(tid))
	// It ends soon after the answer.
	await.Until(t, "the thread has ended", func() bool {
		_, err := os.Stat(task)
		return errors.Is(err, os.ErrNotExist)
	})
}
