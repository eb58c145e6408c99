// SPDX-License-Identifier: Apache-2.0

// Package why_test holds what "sdtrace why" says against real services of real systemds, each PID 1 of its own
// namespaces on this machine's kernel: services that hang or have failed for every cause that it knows, and healthy
// ones. What it says is docs/why.md.
package why_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/vmtest"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

// suites are Debian's, in the order of their systemd's version: 247, 252, 257 and the newest.
var suites = []string{"bullseye-programs", "bookworm-programs", "trixie-programs", "sid-programs"}

var (
	// managers are the booted systemds, in the order of suites; usual is the one that does what one alone has to.
	managers []*pid1.Systemd
	usual    *pid1.Systemd
	// sdtrace is the program to be tested.
	sdtrace string
)

// notify is a perl module for the services that are written in it. They say nothing in the first second: with
// tracepoints the order of what lies within a tenth of one is not known (docs/events.md), nor is the verdict then.
const notify = `use Socket;
sleep 1;
sub notify {
    socket(my $socket, AF_UNIX, SOCK_DGRAM, 0) or return;
    send($socket, $_[0], 0, pack_sockaddr_un($ENV{NOTIFY_SOCKET}));
}
sub usec { open(my $uptime, "<", "/proc/uptime"); return int((split " ", <$uptime>)[0] * 1e6) }
1;
`

func TestMain(m *testing.M) {
	pid1.Play()
	if err := play(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(runTests(m))
}

// play is what this binary does as a service, until it is killed. It returns at once if it is none.
func play(args []string) error {
	switch {
	case len(args) == 1 && args[0] == storeRole:
		return playStore()
	case len(args) == 2 && args[0] == claimRole:
		return playClaim(args[1])
	}
	return nil
}

func runTests(m *testing.M) (status int) {
	flag.Parse()
	if flag.Lookup("test.list").Value.String() != "" || !isDeclared() {
		return m.Run()
	}
	// Tests ask again and again, so that many at once would only keep one another waiting.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	base, err := os.MkdirTemp("", "sdt")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(base)
	end, err := begin(base)
	defer func() {
		if err := end(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// isDeclared says whether these tests run: as root, natively, and with a minute of time.
func isDeclared() bool { return os.Geteuid() == 0 && !testing.Short() && vmtest.Native() }

// begin boots the systemds, and begins a capture of what they are told. end is to be called also after an error.
func begin(base string) (end func() error, err error) {
	end = func() (err error) {
		for _, m := range managers {
			err = errors.Join(err, m.Stop())
		}
		return err
	}
	if sdtrace = os.Getenv("SDTRACE_BINARY"); sdtrace == "" {
		sdtrace = filepath.Join(base, "sdtrace")
		build := exec.Command("go", "build", "-o", sdtrace, "github.com/sdtrace/sdtrace/cmd/sdtrace")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return end, fmt.Errorf("building sdtrace: %w", err)
		}
	}
	if managers, err = pid1.BootAll(base, sdtrace, suites...); err != nil {
		return end, err
	}
	usual = managers[1]
	args := []string{"-o", "json"}
	mount, err := pid1.Cgroup2()
	if err != nil {
		return end, err
	}
	for _, m := range managers {
		if err := os.WriteFile(filepath.Join(m.Shared, "Notify.pm"), []byte(notify), 0o644); err != nil {
			return end, err
		}
		args = append(args, "--cgroup", strings.TrimPrefix(m.Cgroup, mount))
	}
	capture, err := startCapture(args...)
	if err != nil {
		return end, err
	}
	stop := end
	return func() error { return errors.Join(capture(), stop()) }, nil
}

// startCapture runs sdtrace until the returned function is called.
func startCapture(args ...string) (end func() error, err error) {
	cmd := exec.CommandContext(context.Background(), sdtrace, args...)
	// It ends when nobody reads what it shows any more: with this process, however that ends.
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	shown := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, stdout)
		shown <- err
	}()
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if strings.Contains(lines.Text(), ": capturing with ") {
			go func() {
				for lines.Scan() { //nolint:revive // what it says more is of no interest
				}
			}()
			return func() error {
				return errors.Join(cmd.Process.Signal(unix.SIGINT), <-shown, cmd.Wait())
			}, nil
		}
	}
	return nil, fmt.Errorf("sdtrace has ended: %w", cmd.Wait())
}

// declare leaves a test out that cannot run here.
func declare(t *testing.T) {
	t.Helper()
	switch {
	case os.Geteuid() != 0:
		t.Skip("not declared: needs root")
	case testing.Short():
		t.Skip("not declared: a minute and more")
	}
	vmtest.Natively(t, "service managers and processes, which no kernel makes different")
	if len(managers) != len(suites) {
		t.Fatalf("%d systemds are there", len(managers))
	}
}
