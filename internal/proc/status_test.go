// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"os"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTheSignalsThatThisProcessCatchesAreRead(t *testing.T) {
	caught := func() bool {
		p, err := Open(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		s, err := p.Status()
		if err != nil {
			t.Fatal(err)
		}
		if s.PPID != os.Getppid() || s.UID != uint32(os.Getuid()) {
			t.Errorf("%+v", s)
		}
		return s.Caught&(1<<(unix.SIGTSTP-1)) != 0
	}
	if caught() {
		t.Error("SIGTSTP is caught by itself")
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGTSTP)
	defer signal.Stop(c)
	if !caught() {
		t.Error("SIGTSTP is not caught")
	}
}
