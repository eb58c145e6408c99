// SPDX-License-Identifier: Apache-2.0

package proc_test

import (
	"bufio"
	"errors"
	"math"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/vmtest"
)

// script runs a perl script with an environment until the test ends, and returns its process when it says so.
func script(t *testing.T, script string, env ...string) proc.Process {
	t.Helper()
	vmtest.Natively(t, "the memory of perl, which machines do not have")
	cmd := exec.CommandContext(t.Context(), "perl", "-e", script+`; $| = 1; print "here\n"; sleep 1 while 1`)
	cmd.Env = env
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	p, err := proc.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestVariablesAreThoseThatTheCLibraryHasNow(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		want   map[string]string
	}{
		"as executed": {"", map[string]string{"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "7"}},
		"removed":     {"delete $ENV{NOTIFY_SOCKET}", map[string]string{"WATCHDOG_USEC": "7"}},
		"changed":     {`$ENV{NOTIFY_SOCKET} = "x" x 300`, map[string]string{"NOTIFY_SOCKET": string(repeated('x', 300)), "WATCHDOG_USEC": "7"}},
		"all removed": {"%ENV = ()", map[string]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := script(t, c.script, "A=1", "NOTIFY_SOCKET=/run/notify", "WATCHDOG_USEC=7").Variables("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(c.want) {
				t.Errorf("got %q", got)
			}
			for name, value := range c.want {
				if got[name] != value {
					t.Errorf("%s=%q, want %q", name, got[name], value)
				}
			}
		})
	}
}

func repeated(c byte, n int) []byte {
	all := make([]byte, n)
	for i := range all {
		all[i] = c
	}
	return all
}

// This test itself has a C library only where it was built so.
func TestVariablesAreNotGuessedWithoutACLibrary(t *testing.T) {
	p, err := proc.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got, err := p.Variables("PATH"); err == nil && got["PATH"] != os.Getenv("PATH") {
		t.Errorf("got %q", got)
	}
}

// The text stands in this test itself, and in no shell command that waits.
func TestWhetherAProgramHoldsAText(t *testing.T) {
	vmtest.Natively(t, "programs that machines do not have")
	const text = "sdtrace knows programs by this"
	programs := proc.NewPrograms(text)
	const never = 1 << 40
	know := func(p proc.Process) (bool, error) {
		return programs.Know(p, &proc.Reading{Bytes: math.MaxInt, Until: time.Unix(never, 0)})
	}
	own, err := proc.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	for range 2 { // read, and remembered
		if found, err := know(own); !found || err != nil {
			t.Errorf("of this program: %v, %v", found, err)
		}
	}
	if _, err := know(script(t, "")); err == nil {
		t.Error("what perl runs is known")
	}
	cat, _ := startCat(t)
	if found, err := know(cat); found || err != nil {
		t.Errorf("of cat: %v, %v", found, err)
	}
	late := proc.NewPrograms(text)
	if _, err := late.Know(cat, &proc.Reading{Bytes: math.MaxInt}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("without time: %v", err)
	}
	if _, err := late.Know(cat, &proc.Reading{Bytes: 1000, Until: time.Unix(never, 0)}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("with a thousand bytes of it: %v", err)
	}
}
