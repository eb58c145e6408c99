// SPDX-License-Identifier: Apache-2.0

// Package systemd_test runs "sdtrace relay" in services of real systemds of
// several versions, each PID 1 of its own namespaces on this machine's kernel,
// with containers behind it that have their own pid, network, user and time
// namespace.
package systemd_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/sdtrace/sdtrace/vmtest"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

// roles are what this binary does instead of running tests, by its first
// argument.
var roles = map[string]func(args []string) error{
	"container": playContainer,
	"inside":    playInside,
	"report":    playReport,
	"send":      playSend,
}

// The first thread is the one whose namespaces and whose end the kernel means
// by those of the process, so it must start the others.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	pid1.Play()
	if len(os.Args) > 1 {
		if play := roles[os.Args[1]]; play != nil {
			if err := play(os.Args[2:]); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
				os.Exit(101)
			}
			os.Exit(0)
		}
	}
	os.Exit(runTests(m))
}

// suites are Debian's, in the order of their systemd's version.
var suites = []string{"bookworm", "trixie", "sid"}

// sdtrace is the program to be tested.
var sdtrace string

// managers are the booted systemds, in the order of suites.
var managers []*manager

// manager is a systemd to which units can be added.
type manager struct{ *pid1.Systemd }

func runTests(m *testing.M) int {
	flag.Parse()
	if flag.Lookup("test.list").Value.String() != "" || os.Geteuid() != 0 || testing.Short() {
		return m.Run()
	}
	// Tests wait for one another's processes most of their time.
	if err := flag.Set("test.parallel", "64"); err != nil {
		panic(err)
	}
	stop, err := bootAll()
	defer stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// bootAll boots every systemd. stop is to be called also after an error.
func bootAll() (stop func(), err error) {
	base, err := os.MkdirTemp("", "sdt")
	if err != nil {
		return func() {}, err
	}
	stop = func() {
		for _, m := range managers {
			if err := m.Stop(); err != nil {
				fmt.Fprintf(os.Stderr, "systemd of %s: %v\n", m.Name, err)
			}
		}
		os.RemoveAll(base)
	}
	sdtrace = os.Getenv("SDTRACE_BINARY") // of the machine that runs virtual ones
	if sdtrace == "" {
		sdtrace = filepath.Join(base, "sdtrace")
		build := exec.Command("go", "build", "-o", sdtrace, "github.com/sdtrace/sdtrace/cmd/sdtrace")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return stop, fmt.Errorf("building sdtrace: %w", err)
		}
	}
	booted, err := pid1.BootAll(base, sdtrace, suites...)
	for _, m := range booted {
		managers = append(managers, &manager{m})
	}
	return stop, err
}

// eachVersion runs f for each systemd, side by side.
func eachVersion(t *testing.T, f func(t *testing.T, m *manager)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
	if testing.Short() {
		t.Skip("not declared: a minute and more")
	}
	vmtest.Natively(t, "the relay and systemd meet, without programs in the kernel")
	t.Parallel()
	for _, m := range managers {
		t.Run(m.Version, func(t *testing.T) {
			t.Parallel()
			f(t, m)
		})
	}
}

// indent makes output of others stand out in a failure's message.
func indent(s string) string {
	return "\t| " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n\t| ")
}
