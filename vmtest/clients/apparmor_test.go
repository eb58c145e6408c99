// SPDX-License-Identifier: Apache-2.0

package clients_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/vmtest"
)

// refused is a profile (apparmor.d(5)) that lets a process do anything but use AF_UNIX sockets.
const refused = `
profile sdt-refused flags=(attach_disconnected) {
  capability,
  file,
  signal,
  ptrace,
  mount,
  change_profile,
  network inet,
  deny network unix,
}
`

// refusedClient sends, connects and makes a socket after it has changed to the profile, and says how that failed.
const refusedClient = `
import os, socket, sys
path = os.environ["NOTIFY_SOCKET"]
s, other = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
with open("/proc/self/attr/current", "w") as f:
    f.write("changeprofile sdt-refused")
for call in (lambda: s.sendto(b"READY=1", path), lambda: other.connect(path), lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)):
    try:
        call()
        print("it did not fail")
    except OSError as e:
        print(os.strerror(e.errno))
print("done", flush=True)
sys.stdin.read()
`

func TestWhatASecurityModuleRefusesIsCaptured(t *testing.T) {
	if vmtest.Native() {
		t.Skip("not declared: it takes a kernel with AppArmor")
	}
	loadProfile(t, refused)
	withBackend(t, func(t *testing.T, backend string) {
		address := filepath.Join(base, backend, "notify.sock")
		if err := os.MkdirAll(filepath.Dir(address), 0o755); err != nil {
			t.Fatal(err)
		}
		listen(t, address)
		c := open(t, backend, tracer.Filter{Sockets: []string{address}})
		cmd := exec.Command("python3", "-c", refusedClient)
		cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+address)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		cmd.Stdout, cmd.Stderr = &said, os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var got []string
		await.Until(t, "the refusals are captured", func() bool {
			for _, e := range c.drain(t) {
				got = append(got, strings.TrimSpace(string(e.Call)+" "+e.Result.Errno+" "+string(e.Payload)))
				if string(e.Socket.Address) != address || int(e.Sender.PID) != cmd.Process.Pid {
					t.Errorf("to %q by %d", e.Socket.Address, e.Sender.PID)
				}
			}
			return len(got) > 0 && (backend == "tracepoint" || len(got) == 3)
		})
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		if want := strings.Repeat("Permission denied\n", 3) + "done\n"; said.String() != want {
			t.Fatalf("the client says %q", said.String())
		}
		want := []string{"EACCES READY=1", "connect EACCES", "socket EACCES"}
		if backend == "tracepoint" {
			want = want[:len(got)] // what there is to see depends on the hook
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +captured):\n%s", diff)
		}
	})
}

// loadProfile loads a profile of AppArmor into the kernel until the test ends.
func loadProfile(t *testing.T, text string) {
	t.Helper()
	const securityfs = "/sys/kernel/security"
	if _, err := os.Stat(securityfs + "/lsm"); errors.Is(err, fs.ErrNotExist) {
		if err := unix.Mount("securityfs", securityfs, "securityfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	active, err := os.ReadFile(securityfs + "/lsm")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(active), "apparmor") {
		t.Fatalf("active security modules: %s", active)
	}
	for _, flag := range []string{"--replace", "--remove"} {
		run := func() error {
			parser := exec.Command("apparmor_parser", flag, "--skip-cache")
			parser.Stdin = strings.NewReader(text)
			out, err := parser.CombinedOutput()
			if err != nil {
				t.Logf("apparmor_parser %s: %s", flag, out)
			}
			return err
		}
		if flag == "--remove" {
			t.Cleanup(func() { _ = run() })
		} else if err := run(); err != nil {
			t.Fatal(err)
		}
	}
}
