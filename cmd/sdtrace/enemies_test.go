// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sdtrace/sdtrace/internal/enemytest"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest"
)

// sdEnemy is a process of a kind that is not to be looked at.
func sdEnemy() {
	if err := enemytest.Play(os.Args[1], os.Args[2]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// startEnemy returns once there is one, for as long as the test runs, and says which process it is.
func startEnemy(t *testing.T, kind string) (pid int) {
	t.Helper()
	pid, _, _ = enemytest.Start(t, exec.Command("sd-enemy", kind, t.TempDir()))
	return pid
}

// memoryMax is the resident memory of a capture at most, in KiB, and growthMax what enemies and messages add to what it has
// when it begins: in an emulated machine, where nothing is given back so soon, that alone is held.
const memoryMax, growthMax = 60 << 10, 24 << 10

// Beside each of them an honest service is shown whole; the memory stays small; and who interrupts the capture
// sees it end, as long as the enemy may live.
func TestNoEnemyStopsACapture(t *testing.T) {
	for _, kind := range enemytest.Kinds() {
		t.Run(kind, func(t *testing.T) {
			vmtest.Natively(t, "in a machine all of them are tried at once")
			testEnemies(t, 1000, kind)
		})
	}
	messages := 10_000
	switch {
	case vmtest.Long():
		messages = 1_000_000
	case !vmtest.Native():
		messages = 1000
	}
	t.Run("all at once", func(t *testing.T) { testEnemies(t, messages, enemytest.Kinds()...) })
}

func testEnemies(t *testing.T, messages int, kinds ...string) {
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
	for _, kind := range kinds {
		startEnemy(t, kind)
	}
	address := filepath.Join(t.TempDir(), "notify.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() { _, _ = io.Copy(io.Discard, conn) }()

	cmd := exec.Command("sdtrace", "-o", "json")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewScanner(stderr)
	for !strings.Contains(lines.Text(), "capturing") {
		if !lines.Scan() {
			t.Fatal("sdtrace does not capture:", cmd.Wait())
		}
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	// What a start takes is none of theirs (proc_pid_clear_refs(5): the peak begins anew).
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", cmd.Process.Pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
	atFirst := memory(t, cmd.Process.Pid, "VmRSS")
	counted := make(chan captureCount, 1)
	go func() { counted <- countCapture(t, stdout, address) }()
	for _, kind := range kinds {
		startEnemy(t, kind) // as a capture looks at it when it is executed
	}
	const part = 1000
	for first := 0; first < messages; first += part {
		var honest []string
		for i := range min(part, messages-first) {
			honest = append(honest, "STATUS=honest "+strconv.Itoa(first+i))
		}
		if err := send(address, honest, false); err != nil {
			t.Fatal(err)
		}
	}
	peak := memory(t, cmd.Process.Pid, "VmHWM")
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	count := <-counted
	if err := cmd.Wait(); err != nil {
		t.Error("sdtrace ends with", err)
	}
	if peak > memoryMax && vmtest.Native() || peak > atFirst+growthMax {
		t.Errorf("it has taken %d KiB, after %d KiB at its beginning", peak, atFirst)
	}
	t.Logf("%+v, %d KiB, then %d KiB", count, atFirst, peak)
	if count.honest > messages || count.honest+int(count.lost) < messages {
		t.Errorf("of %d messages %d are shown, and %d counted as lost", messages, count.honest, count.lost)
	}
}

// captureCount is what a capture has shown.
type captureCount struct {
	honest int
	lost   uint64
}

// countCapture counts what is shown of the messages to an address.
func countCapture(t *testing.T, capture io.Reader, address string) (count captureCount) {
	lines := bufio.NewReader(capture)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return count
		}
		r, err := events.Decode(line)
		switch {
		case err != nil:
			t.Errorf("%v: %q", err, line)
			return count
		case r.Lost != nil:
			count.lost += r.Lost.Count()
		case r.Event != nil && string(r.Event.Socket.Address) == address:
			count.honest++
		}
	}
}

// memory is a number of /proc/PID/status, in KiB.
func memory(t *testing.T, pid int, name string) (kib int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "\n"+name+":")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatalf("%s: %v in %s", name, err, status)
	}
	return kib
}

// sockets lists what is there beside each of them, and names what it leaves out.
func TestNoEnemyStopsAList(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
	vmtest.Natively(t, "what /proc shows is the same")
	leftOut := map[string]string{
		enemytest.EndlessEnvironment: "its environment is longer than 2 MiB",
		enemytest.DeafFiles:          "where NOTIFY_SOCKET leads: it lies in a file system of another process",
		enemytest.SilentFiles:        "where NOTIFY_SOCKET leads: it lies in a file system of another process",
		enemytest.LinkedFiles:        "where NOTIFY_SOCKET leads: it lies in a file system of another process",
	}
	for _, kind := range enemytest.Kinds() {
		t.Run(kind, func(t *testing.T) {
			pid := startEnemy(t, kind)
			address := filepath.Join(t.TempDir(), "notify.sock")
			conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			cmd := exec.Command("sdtrace", "sockets")
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err = cmd.Run()
			if !strings.Contains(stdout.String(), address) {
				t.Errorf("%v; %s is missing, stderr is\n%s", err, address, stderr.String())
			}
			if peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss; peak > memoryMax {
				t.Errorf("it has taken %d KiB, want %d at most", peak, memoryMax)
			}
			named := regexp.MustCompile(fmt.Sprintf(`this is not all: .*\[%d\]: (.*)`, pid)).FindStringSubmatch(stderr.String())
			switch want := leftOut[kind]; {
			case want == "" && named != nil:
				t.Errorf("it says %q", named[0])
			case want != "" && (named == nil || !strings.HasPrefix(named[1], want)):
				t.Errorf("it does not say %q of %d:\n%s", want, pid, stderr.String())
			}
		})
	}
}
