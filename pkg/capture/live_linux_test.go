// SPDX-License-Identifier: Apache-2.0

package capture_test

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

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/cgroupfs"
	"github.com/sdtrace/sdtrace/internal/holdertest"
	"github.com/sdtrace/sdtrace/pkg/capture"
)

// sendEnv makes this test binary send each line of stdin to the address in it, and say so.
const sendEnv = "SDTRACE_CAPTURE_SEND"

func TestMain(m *testing.M) {
	holdertest.Main()
	if address := os.Getenv(sendEnv); address != "" {
		if err := sendLines(address); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	if os.Geteuid() != 0 {
		// Examples cannot be skipped, and a capture takes root.
		_ = flag.Set("test.run", "^(Test|Fuzz)")
	}
	os.Exit(m.Run())
}

func sendLines(address string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := unix.Sendto(fd, lines.Bytes(), 0, &unix.SockaddrUnix{Name: address}); err != nil {
			return err
		}
		fmt.Println("sent")
	}
	return nil
}

// sender is a process that sends to an address.
type sender struct {
	t   testing.TB
	pid int
	in  *os.File
	out *bufio.Reader
}

// startSender starts one in a control group, "" for this process's.
func startSender(t testing.TB, cgroup, address string) *sender {
	t.Helper()
	in, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), sendEnv+"="+address)
	cmd.Stdin, cmd.Stderr = in, os.Stderr
	if cgroup != "" {
		dir, err := os.Open(cgroupfs.Dir(cgroup))
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	t.Cleanup(func() { ours.Close(); _ = cmd.Wait() })
	s := &sender{t: t, pid: cmd.Process.Pid, in: ours, out: bufio.NewReader(out)}
	s.await("ready")
	return s
}

func (s *sender) await(want string) {
	s.t.Helper()
	if line, err := s.out.ReadString('\n'); err != nil || line != want+"\n" {
		s.t.Fatalf("the sender says %q, %v", line, err)
	}
}

func (s *sender) send(payload string) {
	s.t.Helper()
	if _, err := fmt.Fprintln(s.in, payload); err != nil {
		s.t.Fatal(err)
	}
	s.await("sent")
}

// open begins a capture of what goes to an address.
func open(t testing.TB, options capture.Options) *capture.Live {
	t.Helper()
	live, err := capture.Open(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := live.Close(); err != nil {
			t.Error(err)
		}
	})
	return live
}

// A program that uses the library has all that the command shows, on every backend: the
// receiver, who holds it, and the container's name. The holder is taken over whole, with its own
// control group, by which its container's name is found.
func TestALibraryYieldsAllThatIsKnown(t *testing.T) {
	holdertest.RequireRoot(t)
	const id = "00000000000000000000000000000000000000000000000000000000000000aa"
	address := filepath.Join(holdertest.Dir(t), "notify.sock")
	cgroup := holdertest.Cgroup(t, "/docker/"+id)
	// It reads, so that its queue does not fill up however long the proof takes.
	const read = `import socket, sys, threading; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(sys.argv[1])
def run():
    while True: s.recv(4096)
threading.Thread(target=run, daemon=True).start(); print("ready", flush=True); sys.stdin.read()`
	holder := holdertest.StartInCgroup(t, cgroup, "python3", "-c", read, address)
	live := open(t, capture.Options{Match: capture.Match{Sockets: []string{address}}})
	s := startSender(t, holdertest.Cgroup(t, "/web.service"), address)
	// Whose the address is takes proof, which grows with time: until then each send is shown
	// without it.
	await.Until(t, "whose the address is", func() bool {
		s.send("READY=1")
		r, err := live.Next()
		if err != nil {
			t.Fatal(err)
		}
		e := r.Event
		if e == nil {
			return false
		}
		if int(e.Sender.PID) != s.pid || string(e.Payload) != "READY=1" || string(e.Socket.Address) != address {
			t.Fatalf("captured %+v", e)
		}
		if e.Receiver == nil || e.Receiver.PID == 0 {
			return false
		}
		if int(e.Receiver.PID) != holder.PID || e.Receiver.Cgroup != cgroup || e.Receiver.Container == nil || e.Receiver.Container.ID != id {
			t.Errorf("received by %+v, want process %d of container %s in %s", e.Receiver, holder.PID, id, cgroup)
		}
		return true
	})
}

// The end of the context ends a capture, after all that was captured before.
func TestACaptureEndsWithItsContextAndLosesNothing(t *testing.T) {
	holdertest.RequireRoot(t)
	address := filepath.Join(holdertest.Dir(t), "notify.sock")
	holdertest.Start(t, "", nil, address)
	ctx, cancel := context.WithCancel(t.Context())
	live, err := capture.Open(ctx, capture.Options{Match: capture.Match{Sockets: []string{address}}})
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	s := startSender(t, "", address)
	for i := range 5 {
		s.send(fmt.Sprintf("STATUS=%d", i))
	}
	cancel()
	var got []string
	for r, err := range live.All() {
		if err != nil {
			t.Fatal(err)
		}
		if r.Event != nil {
			got = append(got, string(r.Event.Payload))
		}
	}
	if want := "STATUS=0 STATUS=1 STATUS=2 STATUS=3 STATUS=4"; strings.Join(got, " ") != want {
		t.Errorf("yielded %q, want %q", got, want)
	}
	for range 2 {
		if _, err := live.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
	}
	if err := live.Stop(); err != nil {
		t.Error(err)
	}
	stats, err := live.Stats()
	if err != nil || stats.Captured != 5 {
		t.Errorf("captured %d, %v", stats.Captured, err)
	}
	if err := errors.Join(live.Close(), live.Close()); err != nil {
		t.Error(err)
	}
}

func TestKeysThatAreNotWantedAndGlobsForNamesAreFilters(t *testing.T) {
	holdertest.RequireRoot(t)
	for name, test := range map[string]struct {
		match capture.Match
		want  string
	}{
		"without a key":         {capture.Match{WithoutKeys: []string{"WATCHDOG", "FDSTORE"}}, "READY=1 STATUS=x"},
		"a key, and another":    {capture.Match{Keys: []string{"STATUS", "WATCHDOG"}, WithoutKeys: []string{"FDSTORE"}}, "WATCHDOG=1 STATUS=x"},
		"a glob for names":      {capture.Match{Comms: []string{"capt?re.*"}}, "READY=1 WATCHDOG=1 FDSTORE=1 STATUS=x"},
		"a glob that fits none": {capture.Match{Comms: []string{"capt?r.*", "x"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			address := filepath.Join(holdertest.Dir(t), "notify.sock")
			holdertest.Start(t, "", nil, address) // it reads nothing, and its queue has room for ten
			test.match.Sockets = []string{address}
			live := open(t, capture.Options{Match: test.match})
			s := startSender(t, "", address)
			for _, payload := range []string{"READY=1", "WATCHDOG=1", "FDSTORE=1", "STATUS=x"} {
				s.send(payload)
			}
			if len(test.match.Keys) > 0 {
				s.send("STATUS=x\x00dropped") // by systemd, whole
			}
			if err := live.Stop(); err != nil {
				t.Fatal(err)
			}
			var got []string
			for r, err := range live.All() {
				if err != nil {
					t.Fatal(err)
				}
				if r.Event != nil && int(r.Event.Sender.PID) == s.pid {
					got = append(got, string(r.Event.Payload))
				}
			}
			if text := strings.Join(got, " "); text != test.want {
				t.Errorf("captured %q, want %q", text, test.want)
			}
			if stats, err := live.Stats(); err != nil || stats.Captured != uint64(len(got)) {
				t.Errorf("counted %+v, %v", stats, err)
			}
		})
	}
}

func TestUnitsAreToldByWhoseTheyAre(t *testing.T) {
	holdertest.RequireRoot(t)
	address := filepath.Join(holdertest.Dir(t), "notify.sock")
	holdertest.Start(t, "", nil, address)
	// In the first, no service manager has its root; the host's has not either.
	cgroup := holdertest.Cgroup(t, "/system.slice/web.service")
	unknown := open(t, capture.Options{Match: capture.Match{Sockets: []string{address}}})
	filtered := open(t, capture.Options{Match: capture.Match{Sockets: []string{address}, Units: []string{"web", "*:web"}}})
	s := startSender(t, cgroup, address)
	s.send("READY=1")
	r, err := unknown.Next()
	if err != nil {
		t.Fatal(err)
	}
	if e := r.Event; e.Sender.Cgroup != cgroup || e.Sender.Unit != "" || e.Sender.Machine != "" {
		t.Errorf("sent by %+v, which is a unit of nobody", e.Sender.Identity)
	}
	if err := filtered.Stop(); err != nil {
		t.Fatal(err)
	}
	for r, err := range filtered.All() {
		t.Errorf("captured %+v, %v", r.Event, err)
	}
	stats, err := filtered.Stats()
	if err != nil || stats.Captured != 0 || stats.Filtered == 0 {
		t.Errorf("counted %+v, %v", stats, err)
	}
}

func TestOptionsThatMakeNoSenseAreOptionErrors(t *testing.T) {
	for _, options := range []capture.Options{
		{Backend: "kprobe"},
		{RingSize: 4097},
		{Match: capture.Match{Cgroups: []string{"/no/such/cgroup"}}},
		{Match: capture.Match{Units: []string{"a b"}}},
		{Match: capture.Match{Containers: []string{"a/b"}}},
		{Match: capture.Match{Keys: []string{""}}},
		{Match: capture.Match{PIDs: []uint32{1 << 30}}},
		{Match: capture.Match{Comms: []string{""}}},
		{Match: capture.Match{NetNS: []uint32{0}}},
		{Match: capture.Match{UIDs: []uint32{1<<32 - 1}}},
	} {
		_, err := capture.Open(t.Context(), options)
		var wrong *capture.OptionError
		if !errors.As(err, &wrong) {
			t.Errorf("%+v: %v", options, err)
		}
	}
}

func TestWhatIsNotThereYetIsSaid(t *testing.T) {
	holdertest.RequireRoot(t)
	live := open(t, capture.Options{Match: capture.Match{
		Units: []string{"not-there-yet"}, Containers: []string{"nor-this"}, PIDs: []uint32{1 << 22},
	}})
	want := []string{"process 4194304 does not exist", "unit not-there-yet.service is not running", "container nor-this is not running"}
	for i, text := range live.Missing() {
		if !strings.HasPrefix(text, want[i]) {
			t.Errorf("%q, want %q", text, want[i])
		}
	}
	if len(live.Missing()) != len(want) {
		t.Errorf("%q", live.Missing())
	}
	if live.Has(capture.Receipts) != (live.Hook() == "unix_dgram_sendmsg, unix_dgram_recvmsg") {
		t.Errorf("with %s it has receipts: %v", live.Hook(), live.Has(capture.Receipts))
	}
}
