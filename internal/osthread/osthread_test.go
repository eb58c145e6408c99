// SPDX-License-Identifier: Apache-2.0

package osthread_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); runtime.Gosched() {
		// It ends soon after the answer.
		if _, err := os.Stat(task); errors.Is(err, os.ErrNotExist) {
			return
		}
	}
	t.Errorf("thread %d has not ended", tid)
}
