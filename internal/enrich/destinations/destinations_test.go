// SPDX-License-Identifier: Apache-2.0

package destinations_test

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/enrich/destinations"
	"github.com/sdtrace/sdtrace/internal/holdertest"
	"github.com/sdtrace/sdtrace/internal/osthread"
	"github.com/sdtrace/sdtrace/internal/sockdiag"
	"github.com/sdtrace/sdtrace/pkg/events"
)

const roleEnv = "SDTRACE_DESTINATIONS_ROLE" // in the environment of sendOnDemand

func TestMain(m *testing.M) {
	holdertest.Main()
	if os.Getenv(roleEnv) != "" {
		sendOnDemand()
		return
	}
	// The tests wait for proof, a second at a time, and take little of a processor.
	flag.Parse()
	if err := flag.Set("test.parallel", "32"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// sendOnDemand is a process that sends to the address of each line of stdin, and says when
// the call ended. A line "chroot DIR" or "unshare" is something else to do.
func sendOnDemand() {
	runtime.LockOSThread()
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	fmt.Println("ready", unix.Gettid(), err)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		line := lines.Text()
		dir, chroot := strings.CutPrefix(line, "chroot ")
		switch {
		case chroot:
			err = unix.Chroot(dir)
		case line == "unshare":
			err = unix.Unshare(unix.CLONE_NEWNS)
		default:
			err = unix.Sendto(socket, []byte("READY=1"), 0, &unix.SockaddrUnix{Name: line})
		}
		var now unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
		fmt.Println("ended", now.Nano(), err)
	}
}

// sender is such a process.
type sender struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	is  destinations.Send
}

// startSender starts one, by another command if there is one, such as unshare(1).
func startSender(t *testing.T, by ...string) *sender {
	t.Helper()
	args := append(by, os.Args[0])
	s := &sender{cmd: exec.Command(args[0], args[1:]...)}
	s.cmd.Env = append(os.Environ(), roleEnv+"=send")
	s.cmd.Stderr = os.Stderr
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.end)
	var tid uint32
	var failed string
	if _, err := fmt.Fscanln(s.out, new(string), &tid, &failed); err != nil || failed != "<nil>" {
		t.Fatal(err, failed)
	}
	proc := fmt.Sprintf("/proc/%d", s.cmd.Process.Pid)
	stat, err := os.ReadFile(proc + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	ticks, err := strconv.ParseUint(strings.Fields(rest)[22-3], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	s.is = destinations.Send{
		PID: uint32(s.cmd.Process.Pid), TID: tid, StartTime: ticks * uint64(10*time.Millisecond),
		MntNS: uint32(holdertest.Inode(t, proc+"/ns/mnt")), NetNS: uint32(holdertest.Inode(t, proc+"/ns/net")),
	}
	return s
}

func (s *sender) end() {
	s.in.Close()
	_ = s.cmd.Wait()
}

func (s *sender) begin(t *testing.T, line string) {
	t.Helper()
	if _, err := fmt.Fprintln(s.in, line); err != nil {
		t.Fatal(err)
	}
}

func (s *sender) await(t *testing.T) (ended time.Duration) {
	t.Helper()
	line, err := s.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var failed string
	if _, err := fmt.Sscanf(line, "ended %d %s", &ended, &failed); err != nil || failed != "<nil>" {
		t.Fatalf("the sender says %q, %v", line, err)
	}
	return ended
}

func (s *sender) do(t *testing.T, line string) time.Duration {
	t.Helper()
	s.begin(t, line)
	return s.await(t)
}

// send sends to an address.
func (s *sender) send(t *testing.T, address string) destinations.Send {
	t.Helper()
	is := s.is
	is.Address, is.Ended = events.Address(address), s.do(t, address)
	return is
}

// receiver is a bound socket of the test's own.
type receiver struct {
	fd    int
	inode uint32
	netns uint64
}

func bindHere(t *testing.T, address string) *receiver {
	t.Helper()
	return bindBy(t, address, func(bind func() error) error { return bind() })
}

// bindIn binds in the network namespace of a process.
func bindIn(t *testing.T, pid int, address string) *receiver {
	t.Helper()
	return bindBy(t, address, func(bind func() error) error {
		return osthread.Do(func() error {
			there, err := netns.GetFromPid(pid)
			if err != nil {
				return err
			}
			defer there.Close()
			if err := netns.Set(there); err != nil {
				return err
			}
			return bind()
		})
	})
}

func bindBy(t *testing.T, address string, call func(bind func() error) error) *receiver {
	t.Helper()
	fd := -1
	var socket, namespace unix.Stat_t
	err := call(func() (err error) {
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		return errors.Join(
			unix.Bind(fd, &unix.SockaddrUnix{Name: address}),
			unix.Fstat(fd, &socket),
			unix.Stat("/proc/thread-self/ns/net", &namespace),
		)
	})
	r := &receiver{fd: fd, inode: uint32(socket.Ino), netns: namespace.Ino}
	t.Cleanup(r.close)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// close can be called again: the number may be another test's socket then.
func (r *receiver) close() {
	if r.fd >= 0 {
		unix.Close(r.fd)
	}
	r.fd = -1
}

// abstract is a name that no other run of the tests has.
func abstract(name string) string { return fmt.Sprintf("@sdtrace-%s-%d", name, os.Getpid()) }

// got reports whether a datagram has come, and takes it.
func (r *receiver) got(t *testing.T) bool {
	t.Helper()
	_, err := unix.Read(r.fd, make([]byte, 16))
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
	return err == nil
}

func watchDestinations(t *testing.T) *destinations.Destinations {
	t.Helper()
	d := destinations.Watch()
	t.Cleanup(d.Close)
	return d
}

// awaitDestination sends until the receiver is found, and is told of no other meanwhile.
func awaitDestination(t *testing.T, d *destinations.Destinations, s *sender, address string, r *receiver) destinations.Destination {
	t.Helper()
	var found destinations.Destination
	await.Until(t, "where "+address+" leads", func() bool {
		is := s.send(t, address)
		if !r.got(t) {
			t.Fatalf("what was sent to %s did not come", address)
		}
		var ok bool
		if found, ok = d.Find(is); ok && found.Inode != r.inode {
			t.Fatalf("%s led to socket %d, want %d", address, found.Inode, r.inode)
		}
		return ok && found.NetNS != 0
	})
	return found
}

func mkdir(t *testing.T, path string) string {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func symlink(t *testing.T, to, name string) string {
	t.Helper()
	if err := os.Symlink(to, name); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestTheSocketThatAnAddressLedToIsFound(t *testing.T) {
	holdertest.RequireRoot(t)
	t.Parallel()
	d := watchDestinations(t)
	in := holdertest.Dir(t)
	far := mkdir(t, in+"/far")
	another := holdertest.Start(t, "", []string{"--net"}) // a network namespace
	nearby := bindHere(t, in+"/s")
	elsewhere := bindIn(t, another.PID, far+"/s")
	twice := abstract("twice")
	here, there := bindHere(t, twice), bindIn(t, another.PID, twice)
	netns := fmt.Sprintf("--net=/proc/%d/ns/net", another.PID)
	mount := func(script string) []string {
		return []string{"unshare", "--mount", "sh", "-c", script + ` && exec "$@"`, "sh"}
	}
	for _, test := range []struct {
		name    string
		by      []string
		chroot  string
		address string
		leads   *receiver
		bound   events.Address
	}{
		{name: "path", address: in + "/s", leads: nearby, bound: events.Address(in + "/s")},
		{name: "path of a socket of another network namespace", address: far + "/s", leads: elsewhere, bound: events.Address(far + "/s")},
		{name: "relative link", address: symlink(t, "../"+filepath.Base(in)+"/far/./s", in+"/relative"), leads: elsewhere, bound: events.Address(far + "/s")},
		{name: "link to a directory", address: symlink(t, far, in+"/link") + "/../s", leads: nearby, bound: events.Address(in + "/s")},
		{name: "mounted directory", by: mount("mount --bind " + far + " /mnt"), address: "/mnt/s", leads: elsewhere, bound: events.Address(far + "/s")},
		{name: "mounted file", by: mount("mount --bind " + far + "/s " + in + "/s"), address: in + "/s", leads: elsewhere, bound: events.Address(far + "/s")},
		{name: "another root", chroot: far, address: "/s", leads: elsewhere, bound: events.Address(far + "/s")},
		{name: "out of another root", chroot: far, address: "/../../s", leads: elsewhere, bound: events.Address(far + "/s")},
		{name: "abstract", address: twice, leads: here, bound: events.Address(twice)},
		{name: "abstract in another network namespace", by: []string{"nsenter", netns}, address: twice, leads: there, bound: events.Address(twice)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := startSender(t, test.by...)
			if test.chroot != "" {
				s.do(t, "chroot "+test.chroot)
			}
			got := awaitDestination(t, d, s, test.address, test.leads)
			if got.Bound != test.bound || got.NetNS != test.leads.netns || got.UID == nil || *got.UID != 0 {
				t.Errorf("got %+v, want %q in %d of user 0", got, test.bound, test.leads.netns)
			}
		})
	}
}

// On overlayfs a socket is known by other numbers than the kernel goes by.
func TestTheSocketOfAFileOnAnOverlayIsFound(t *testing.T) {
	holdertest.RequireRoot(t)
	t.Parallel()
	d := watchDestinations(t)
	in := holdertest.Dir(t)
	for _, name := range []string{"lower", "rest", "m"} {
		mkdir(t, filepath.Join(in, name))
	}
	s := startSender(t, "unshare", "--mount", "sh", "-c", `
cd "$1" && mount -t tmpfs none rest && mkdir rest/upper rest/work &&
mount -t overlay -o lowerdir=lower,upperdir=rest/upper,workdir=rest/work none m && exec "$2"`, "sh", in)
	r := bindHere(t, fmt.Sprintf("/proc/%d/root%s/m/s", s.is.PID, in))
	awaitDestination(t, d, s, in+"/m/s", r)
}

func TestASendIsNeverTakenForOneToALaterSocket(t *testing.T) {
	holdertest.RequireRoot(t)
	t.Parallel()
	exchange := func(a, b string) error {
		return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	}
	anew := abstract("anew")
	for _, test := range []struct {
		name    string
		address string
		// change makes the address lead from one socket to another, which it may make.
		change func(t *testing.T, in string, from, to *receiver) *receiver
	}{
		{"bound anew", "a/s", func(t *testing.T, in string, _, _ *receiver) *receiver {
			if err := os.Remove(in + "/a/s"); err != nil {
				t.Fatal(err)
			}
			return bindHere(t, in+"/a/s")
		}},
		{"renamed", "a/s", func(t *testing.T, in string, _, to *receiver) *receiver {
			if err := os.Rename(in+"/b/s", in+"/a/s"); err != nil {
				t.Fatal(err)
			}
			return to
		}},
		{"exchanged", "a/s", func(t *testing.T, in string, _, to *receiver) *receiver {
			if err := exchange(in+"/a/s", in+"/b/s"); err != nil {
				t.Fatal(err)
			}
			return to
		}},
		{"directories exchanged", "a/s", func(t *testing.T, in string, _, to *receiver) *receiver {
			if err := exchange(in+"/a", in+"/b"); err != nil {
				t.Fatal(err)
			}
			return to
		}},
		{"link replaced", "link", func(t *testing.T, in string, _, to *receiver) *receiver {
			symlink(t, "b/s", in+"/other")
			if err := os.Rename(in+"/other", in+"/link"); err != nil {
				t.Fatal(err)
			}
			return to
		}},
		{"another directory mounted", "a/s", func(t *testing.T, in string, _, to *receiver) *receiver {
			if err := unix.Mount(in+"/b", in+"/a", "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Unmount(in+"/a", unix.MNT_DETACH) }) //nolint:errcheck // gone with the directory otherwise
			return to
		}},
		{"abstract name bound anew", anew, func(t *testing.T, _ string, from, _ *receiver) *receiver {
			from.close()
			// A process that another test is just starting has a copy until it is executed.
			await.Until(t, "the name is free", func() bool {
				_, err := sockdiag.ConnectAbstract(events.Address(anew))
				return errors.Is(err, unix.ECONNREFUSED)
			})
			return bindHere(t, anew)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := watchDestinations(t)
			in := holdertest.Dir(t)
			mkdir(t, in+"/a")
			mkdir(t, in+"/b")
			address, bound := test.address, test.address
			if address[0] != '@' {
				symlink(t, "a/s", in+"/link")
				address, bound = in+"/"+address, in+"/a/s"
			}
			from, to := bindHere(t, bound), bindHere(t, in+"/b/s")
			s := startSender(t)
			awaitDestination(t, d, s, address, from)

			is := s.send(t, address)
			if !from.got(t) {
				t.Fatal("what was sent did not come")
			}
			to = test.change(t, in, from, to)
			if found, ok := d.Find(is); ok {
				t.Fatalf("led to socket %d, though it leads to %d only since", found.Inode, to.inode)
			}
			awaitDestination(t, d, s, address, to)
		})
	}
}

// A send that waits for room in the queue of its receiver was on its way to that one.
func TestASendThatWaitedIsNotTakenForOneToALaterSocket(t *testing.T) {
	holdertest.RequireRoot(t)
	t.Parallel()
	d := watchDestinations(t)
	in := holdertest.Dir(t)
	from, to := bindHere(t, in+"/s"), bindHere(t, in+"/t")
	s := startSender(t)
	awaitDestination(t, d, s, in+"/s", from)

	full, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(full)
	for err == nil {
		err = unix.Sendto(full, []byte("x"), 0, &unix.SockaddrUnix{Name: in + "/s"})
	}
	s.begin(t, in+"/s")
	awaitSendto(t, s)
	if err := os.Rename(in+"/t", in+"/s"); err != nil {
		t.Fatal(err)
	}
	// It leads there for long when the call ends, and still did not when it began.
	other := startSender(t)
	awaitDestination(t, d, other, in+"/s", to)
	for from.got(t) {
	}
	is := s.is
	is.Address, is.Ended = events.Address(in+"/s"), s.await(t)
	if to.got(t) {
		t.Fatal("the sender did not wait for the receiver it was meant to wait for")
	}
	if found, ok := d.Find(is); ok {
		t.Errorf("led to socket %d, want nothing or %d", found.Inode, from.inode)
	}
	awaitDestination(t, d, s, in+"/s", to)
}

// awaitSendto waits until the sender sleeps in sendto(2).
func awaitSendto(t *testing.T, s *sender) {
	t.Helper()
	await.Until(t, "the sender sleeps in sendto", func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/syscall", s.is.PID, s.is.TID))
		if err != nil {
			t.Fatal(err)
		}
		return strings.HasPrefix(string(text), fmt.Sprintf("%d ", unix.SYS_SENDTO))
	})
}

func TestASenderThatHasMovedIsNotFollowed(t *testing.T) {
	holdertest.RequireRoot(t)
	t.Parallel()
	d := watchDestinations(t)
	in := holdertest.Dir(t)
	// The same path leads to another socket in the other root.
	outer := bindHere(t, in+"/s")
	mkdir(t, in+"/root"+in)
	inner := bindHere(t, in+"/root"+in+"/s")
	for _, line := range []string{"chroot " + in + "/root", "unshare"} {
		t.Run(strings.Fields(line)[0], func(t *testing.T) {
			t.Parallel()
			s := startSender(t)
			awaitDestination(t, d, s, in+"/s", outer)
			is := s.send(t, in+"/s")
			outer.got(t)
			s.do(t, line)
			if found, ok := d.Find(is); ok {
				t.Errorf("led to socket %d, want nothing", found.Inode)
			}
			if line != "unshare" {
				awaitDestination(t, d, s, in+"/s", inner)
			}
		})
	}
}

func TestWhereASenderThatIsGoneSentIsNotFoundOut(t *testing.T) {
	holdertest.RequireRoot(t)
	t.Parallel()
	d := watchDestinations(t)
	in := holdertest.Dir(t)
	r := bindHere(t, in+"/s")
	awaitDestination(t, d, startSender(t), in+"/s", r)
	s := startSender(t)
	is := s.send(t, in+"/s")
	s.end()
	if found, ok := d.Find(is); ok {
		t.Errorf("led to socket %d, want nothing", found.Inode)
	}
	// Nor is another process asked that has its number. One started in the same tick would
	// look like it, but no number comes round that soon.
	other := startSender(t)
	for other.is.StartTime == is.StartTime {
		other = startSender(t)
	}
	is.PID, is.TID = other.is.PID, other.is.TID
	if found, ok := d.Find(is); ok {
		t.Errorf("led to socket %d, asked of another process", found.Inode)
	}
}

// It is not parallel: another test mounts, after which all has to be looked up anew.
func TestOneLookAnswersForAllThatWasSentBefore(t *testing.T) {
	holdertest.RequireRoot(t)
	d := watchDestinations(t)
	in := holdertest.Dir(t)
	r := bindHere(t, in+"/s")
	s := startSender(t)
	awaitDestination(t, d, s, in+"/s", r)
	var sends []destinations.Send
	for all := false; !all; {
		sends = sends[:0]
		for range 100 {
			sends = append(sends, s.send(t, in+"/s"))
			r.got(t)
		}
		// Something may have been mounted on this machine just then.
		_, last := d.Find(sends[len(sends)-1])
		_, first := d.Find(sends[0])
		all = first && last
	}
	// Nothing can be looked up any more.
	s.end()
	for _, is := range sends {
		if found, ok := d.Find(is); !ok || found.Inode != r.inode {
			t.Fatalf("led to %+v, %v, want socket %d", found, ok, r.inode)
		}
	}
	last := sends[len(sends)-1]
	last.Ended += time.Hour
	if found, ok := d.Find(last); ok {
		t.Errorf("led to socket %d after the look", found.Inode)
	}
}

func TestWhereARelativePathLeadsIsNotGuessed(t *testing.T) {
	holdertest.RequireRoot(t)
	t.Parallel()
	d := watchDestinations(t)
	in := holdertest.Dir(t)
	r := bindHere(t, in+"/s")
	s := startSender(t, "env", "--chdir="+in)
	awaitDestination(t, d, s, in+"/s", r)
	if found, ok := d.Find(s.send(t, "s")); ok {
		t.Errorf("led to socket %d", found.Inode)
	}
}
