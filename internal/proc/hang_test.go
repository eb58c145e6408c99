// SPDX-License-Identifier: Apache-2.0

package proc_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/enemytest"
	"github.com/sdtrace/sdtrace/internal/proc"
)

// enemyEnv makes the test binary a process that is not to be looked at, of that kind.
const enemyEnv = "SDTRACE_TEST_ENEMY"

func TestMain(m *testing.M) {
	if kind := os.Getenv(enemyEnv); kind != "" {
		if err := enemytest.Play(kind, os.Getenv("DIR")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// enemy is a process that is not to be looked at.
type enemy struct {
	proc.Process
	memory uintptr
	end    func()
}

func startEnemy(t *testing.T, kind string) enemy {
	t.Helper()
	return startEnemyIn(t, kind, t.TempDir())
}

func startEnemyIn(t *testing.T, kind, dir string) enemy {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{enemyEnv + "=" + kind, "DIR=" + dir, "PATH=" + os.Getenv("PATH")}
	pid, memory, end := enemytest.Start(t, cmd)
	p, err := proc.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return enemy{p, memory, end}
}

// look reads the memory, which takes until somebody gives up.
func (e enemy) look() error {
	_, err := proc.Within(e.Process, "memory", func(p proc.Process) ([]byte, error) {
		to := make([]byte, 1)
		local := []unix.Iovec{{Base: &to[0], Len: 1}}
		_, err := unix.ProcessVMReadv(p.PID, local, []unix.RemoteIovec{{Base: e.memory, Len: 1}}, 0)
		return to, err
	}, nil)
	return err
}

func TestAnEnvironmentWithoutEndIsNotRead(t *testing.T) {
	e := startEnemy(t, enemytest.EndlessEnvironment)
	if _, err := e.Read("environ"); !errors.Is(err, unix.EFBIG) {
		t.Errorf("got error %v, want %v", err, unix.EFBIG)
	}
}

// Variables are of any length, and nothing in the middle of another one counts.
func TestNotifySocketIsFoundInALongEnvironment(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
	const buffer = 16 << 10
	for _, test := range []struct {
		env  []string
		want string
		ok   bool
	}{
		{[]string{"A=1", "NOTIFY_SOCKET=/a", "B=NOTIFY_SOCKET=/b"}, "/a", true},
		{[]string{"LONG=" + strings.Repeat("x", 100_000), "XNOTIFY_SOCKET=/x", "NOTIFY_SOCKET=@a"}, "@a", true},
		{[]string{"L=" + strings.Repeat("x", buffer-2) + "NOTIFY_SOCKET=/middle", "Z=1"}, "", false},
		{[]string{"NOTIFY_SOCKET="}, "", true},
		{[]string{"A=1"}, "", false},
	} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(test.env, enemyEnv+"="+enemytest.SilentMemory)
		pid, _, end := enemytest.Start(t, cmd)
		p, err := proc.Open(pid)
		if err != nil {
			t.Fatal(err)
		}
		value, ok, err := p.NotifySocket()
		if value != test.want || ok != test.ok || err != nil {
			t.Errorf("%.60q: %q, %v, %v, want %q, %v", test.env, value, ok, err, test.want, test.ok)
		}
		p.Close()
		end()
	}
	e := startEnemy(t, enemytest.EndlessEnvironment)
	if _, _, err := e.NotifySocket(); !errors.Is(err, unix.EFBIG) {
		t.Errorf("got error %v, want %v", err, unix.EFBIG)
	}
}

// What has taken a request and does not answer holds even a process that is killed.
func TestAFileSystemOfAnotherProcessIsNotAsked(t *testing.T) {
	for kind, want := range map[string]bool{enemytest.SilentFiles: true, enemytest.LinkedFiles: true, enemytest.EndlessEnvironment: false} {
		dir := t.TempDir()
		e := startEnemyIn(t, kind, dir)
		path := filepath.Join(dir, "files", "notify.sock")
		if kind == enemytest.LinkedFiles {
			path = filepath.Join(dir, "link", "notify.sock")
		}
		if got := e.IsOnFUSE(path); got != want {
			t.Errorf("%s: %s is in such a file system: %v", kind, path, got)
		}
		if _, _, err := e.OpenPath(path); errors.Is(err, proc.ErrFUSE) != want {
			t.Errorf("%s: opening %s: %v", kind, path, err)
		}
	}
}

func TestALookThatDoesNotComeBackIsLeftBehindAndNotTakenAgain(t *testing.T) {
	e := startEnemy(t, enemytest.SilentMemory)
	for range 3 {
		if err := e.look(); !errors.Is(err, proc.ErrHangs) {
			t.Fatalf("got error %v, want %v", err, proc.ErrHangs)
		}
	}
	left := proc.Hangs()
	if len(left) != 1 || left[0].PID != e.PID || left[0].What != "memory" || left[0].Comm == "" {
		t.Fatalf("left behind: %+v, want one look at %d", left, e.PID)
	}
	e.end()
	await.Until(t, "the look has come back", func() bool { return len(proc.Hangs()) == 0 })
}

// One user cannot have many threads wait for him.
func TestAnOwnerOfSeveralThatHangIsNotLookedAtAnyMore(t *testing.T) {
	var all []enemy
	for range 5 {
		all = append(all, startEnemy(t, enemytest.SilentMemory))
	}
	for _, e := range all {
		if err := e.look(); !errors.Is(err, proc.ErrHangs) {
			t.Errorf("got error %v, want %v", err, proc.ErrHangs)
		}
	}
	if n := len(proc.Hangs()); n != 3 {
		t.Errorf("%d are left behind, want 3", n)
	}
	for _, e := range all {
		e.end()
	}
	await.Until(t, "all looks have come back", func() bool { return len(proc.Hangs()) == 0 })
}
