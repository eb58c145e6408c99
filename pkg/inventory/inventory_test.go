// SPDX-License-Identifier: Apache-2.0

package inventory_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/eventtest"
	"github.com/sdtrace/sdtrace/internal/holdertest"
	"github.com/sdtrace/sdtrace/internal/osthread"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/inventory"
	"github.com/sdtrace/sdtrace/vmtest"
)

// roleEnv tells this test binary that it is another process: "unreadable" says what an inventory could not look
// at.
const roleEnv = "SDTRACE_INVENTORY_ROLE"

func TestMain(m *testing.M) {
	holdertest.Main()
	if os.Getenv(roleEnv) == "unreadable" {
		inv, err := inventory.Take(context.Background(), inventory.Options{})
		if err != nil {
			panic(err)
		}
		for _, name := range inv.Unreadable {
			fmt.Println(name)
		}
		return
	}
	os.Exit(m.Run())
}

func take(t testing.TB, options inventory.Options) *inventory.Inventory {
	t.Helper()
	inv, err := inventory.Take(context.Background(), options)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// heldBy returns the sockets of a process, by address.
func heldBy(inv *inventory.Inventory, p *holdertest.Process) map[string]inventory.Socket {
	sockets := make(map[string]inventory.Socket)
	for _, s := range inv.Sockets {
		if slices.ContainsFunc(s.Holders, func(h inventory.Process) bool { return h.PID == p.PID }) {
			sockets[string(s.Address)] = s
		}
	}
	return sockets
}

func clientOf(t testing.TB, inv *inventory.Inventory, p *holdertest.Process) inventory.Client {
	t.Helper()
	i := slices.IndexFunc(inv.Clients, func(c inventory.Client) bool { return c.PID == p.PID })
	if i < 0 {
		t.Fatalf("process %d is not among the clients", p.PID)
	}
	return inv.Clients[i]
}

func TestSocketsAreFoundInEveryNetworkNamespaceWithTheirHolder(t *testing.T) {
	holdertest.RequireRoot(t)
	d := holdertest.Dir(t)
	here := holdertest.Start(t, "", nil, d+"/notify.sock", d+"/other.sock")
	there := holdertest.Start(t, "", []string{"--net"}, "@sdtrace-test/notify.sock")
	inv := take(t, inventory.Options{})
	for _, test := range []struct {
		process *holdertest.Process
		address string
	}{{here, d + "/notify.sock"}, {there, "@sdtrace-test/notify.sock"}} {
		s, found := heldBy(inv, test.process)[test.address]
		if !found {
			t.Errorf("%s of process %d is missing", test.address, test.process.PID)
			continue
		}
		if want := holdertest.Inode(t, fmt.Sprintf("/proc/%d/ns/net", test.process.PID)); s.NetNS != want {
			t.Errorf("%s is in network namespace %d, want %d", test.address, s.NetNS, want)
		}
		if !s.Notify || s.UID == nil || *s.UID != 0 || s.MaxQueued == nil {
			t.Errorf("%+v: want a notify socket of user 0 with a limit", s)
		}
		if len(s.Holders) != 1 || s.Holders[0].Comm == "" || s.Holders[0].Cgroup == "" {
			t.Errorf("held by %+v, want one process with a name and a control group", s.Holders)
		}
	}
	if _, found := heldBy(inv, here)[d+"/other.sock"]; found {
		t.Error("a socket of another name is listed")
	}
	if _, found := heldBy(take(t, inventory.Options{All: true}), here)[d+"/other.sock"]; !found {
		t.Error("a socket of another name is not listed under All")
	}
}

// A network namespace that is bound to a name is looked at though no process is in
// it: its sockets are held by processes elsewhere.
func TestANamespaceWithoutProcessesIsLookedAt(t *testing.T) {
	holdertest.RequireRoot(t)
	name := filepath.Join(holdertest.Dir(t), "ns")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var held int
	err := osthread.Do(func() error {
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", name, "", unix.MS_BIND, "")
		}
		if err == nil {
			held, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		}
		if err == nil {
			err = unix.Bind(held, &unix.SockaddrUnix{Name: "@sdtrace-alone/notify.sock"})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(held)
	defer unix.Unmount(name, unix.MNT_DETACH) //nolint:errcheck // gone with the directory otherwise
	s, found := heldBy(take(t, inventory.Options{}), &holdertest.Process{PID: os.Getpid()})["@sdtrace-alone/notify.sock"]
	if !found || s.NetNS != holdertest.Inode(t, name) {
		t.Errorf("got %+v, want a socket in network namespace %d", s, holdertest.Inode(t, name))
	}
}

func TestNotifySocketIsFollowedFromItsProcess(t *testing.T) {
	holdertest.RequireRoot(t)
	d := holdertest.Dir(t)
	root := filepath.Join(d, "root")
	if err := os.MkdirAll(root+"/run", 0o755); err != nil {
		t.Fatal(err)
	}
	manager := holdertest.Start(t, "", []string{"--net"}, d+"/m", "@sdtrace-manager", root+"/run/m")
	stream, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stream)
	if err := unix.Bind(stream, &unix.SockaddrUnix{Name: d + "/stream"}); err != nil {
		t.Fatal(err)
	}
	stale, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(stale, &unix.SockaddrUnix{Name: d + "/stale"}); err != nil {
		t.Fatal(err)
	}
	unix.Close(stale)
	// Absolute links in a container lead to files of the container.
	if err := os.Symlink("/run/m", root+"/link"); err != nil {
		t.Fatal(err)
	}
	long := "/" + strings.Repeat("x", 107)
	inThere := []string{"--net=" + fmt.Sprintf("/proc/%d/ns/net", manager.PID)}
	for _, test := range []struct {
		value string
		where []string // options of nsenter(1); nil: here
		root  bool
		state inventory.ClientState
		leads string // address of the manager's socket
	}{
		{value: d + "/m", state: inventory.ClientOK, leads: d + "/m"},
		{value: "/run/m", root: true, state: inventory.ClientOK, leads: root + "/run/m"},
		{value: "/link", root: true, state: inventory.ClientOK, leads: root + "/run/m"},
		{value: "/run/../../../run/m", root: true, state: inventory.ClientOK, leads: root + "/run/m"},
		{value: "@sdtrace-manager", where: inThere, state: inventory.ClientOK, leads: "@sdtrace-manager"},
		{value: "@sdtrace-manager", state: inventory.ClientNobody},
		{value: d + "/gone", state: inventory.ClientMissing},
		{value: d + "/stale", state: inventory.ClientNobody},
		{value: d + "/stream", state: inventory.ClientWrongType},
		{value: d, state: inventory.ClientNotSocket},
		{value: d + "/m/x", state: inventory.ClientMissing},
		{value: "vsock:2:4711", state: inventory.ClientVsock},
		{value: "run/m", state: inventory.ClientInvalid},
		{value: "@", state: inventory.ClientInvalid},
		{value: long, state: inventory.ClientInvalid},
	} {
		name := fmt.Sprintf("%.40s from %v, %v", test.value, test.where != nil, test.root)
		t.Run(name, func(t *testing.T) {
			var p *holdertest.Process
			switch {
			case test.root:
				p = holdertest.StartIn(t, test.value, root)
			case test.where != nil:
				p = holdertest.StartBy(t, test.value, append([]string{"nsenter"}, append(test.where, os.Args[0])...)...)
			default:
				p = holdertest.Start(t, test.value, nil)
			}
			inv := take(t, inventory.Options{})
			c := clientOf(t, inv, p)
			if c.NotifySocket != test.value || c.State != test.state {
				t.Errorf("%q is %q, want %q %q", c.NotifySocket, c.State, test.value, test.state)
			}
			if test.leads == "" {
				return
			}
			s, found := heldBy(inv, manager)[test.leads]
			if !found || c.Inode != s.Inode || !s.Notify {
				t.Errorf("leads to socket %d, want %+v", c.Inode, s)
			}
		})
	}
}

func TestWhatBecameOfTheFileOfASocketIsSaid(t *testing.T) {
	holdertest.RequireRoot(t)
	d := holdertest.Dir(t)
	at := func(name string) string { return filepath.Join(d, name, "notify.sock") }
	for _, name := range []string{"there", "moved", "replaced"} {
		if err := os.Mkdir(filepath.Join(d, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := holdertest.Start(t, "", nil, at("there"), at("moved"), at("replaced"))
	if err := os.Chmod(at("there"), 0o620); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(at("there"), 12, 34); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(at("moved"), at("moved")+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(at("replaced")); err != nil {
		t.Fatal(err)
	}
	holdertest.Start(t, "", nil, at("replaced"))
	sockets := heldBy(take(t, inventory.Options{}), p)
	for name, want := range map[string]inventory.FileState{
		"there": inventory.FileThere, "moved": inventory.FileMissing, "replaced": inventory.FileReplaced,
	} {
		if f := sockets[at(name)].File; f == nil || f.State != want {
			t.Errorf("%s: %+v, want %q", name, f, want)
		}
	}
	if f := sockets[at("there")].File; f == nil || f.Mode != "0620" || *f.UID != 12 || *f.GID != 34 || string(f.Path) != at("there") {
		t.Errorf("%+v, want mode 0620 of 12:34", f)
	}
}

// Programs bind to a long path through an open directory.
func TestASocketBoundThroughADirectoryIsCalledByItsPath(t *testing.T) {
	holdertest.RequireRoot(t)
	d := filepath.Join(holdertest.Dir(t), strings.Repeat("long", 40))
	if err := os.Mkdir(d, 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(d, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	address := fmt.Sprintf("/proc/self/fd/%d/new", fd)
	if err := unix.Bind(s, &unix.SockaddrUnix{Name: address}); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(d+"/new", d+"/notify.sock"); err != nil {
		t.Fatal(err)
	}
	got, found := heldBy(take(t, inventory.Options{}), &holdertest.Process{PID: os.Getpid()})[address]
	if !found || got.File == nil || string(got.File.Path) != d+"/notify.sock" {
		t.Errorf("got %+v with file %+v, want %s", got, got.File, d+"/notify.sock")
	}
}

// Some file systems show another device number than the kernel knows a socket by.
func TestFilesAreToldApartWhereTheirDeviceNumbersAreNot(t *testing.T) {
	holdertest.RequireRoot(t)
	d := holdertest.Dir(t)
	for _, name := range []string{"lower", "rest", "m"} {
		if err := os.Mkdir(filepath.Join(d, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// An overlay over two file systems, which the process alone sees.
	const script = `
cd "$1" && mount -t tmpfs none rest && mkdir rest/upper rest/work &&
mount -t overlay -o lowerdir=lower,upperdir=rest/upper,workdir=rest/work none m && exec "$2" "$1/m/notify.sock"`
	manager := holdertest.StartBy(t, "", "unshare", "--mount", "sh", "-c", script, "sh", d, os.Args[0])
	nsenter := []string{"nsenter", "--target", fmt.Sprint(manager.PID), "--mount"}
	p := holdertest.StartBy(t, d+"/m/notify.sock", append(nsenter, os.Args[0])...)
	holdertest.StartBy(t, "", append(nsenter, os.Args[0], d+"/m/other")...)
	inv := take(t, inventory.Options{})
	s, found := heldBy(inv, manager)[d+"/m/notify.sock"]
	if !found || s.File == nil || s.File.State != inventory.FileThere {
		t.Errorf("got %+v with file %+v, want it to be there", s, s.File)
	}
	if c := clientOf(t, inv, p); c.State != inventory.ClientOK || c.Inode != s.Inode {
		t.Errorf("%q leads to socket %d, want %d", c.State, c.Inode, s.Inode)
	}
}

func TestADatagramThatWaitsIsSeen(t *testing.T) {
	holdertest.RequireRoot(t)
	address := filepath.Join(holdertest.Dir(t), "notify.sock")
	p := holdertest.Start(t, "", nil, address)
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	for _, payload := range []string{"READY=1", "STATUS=x"} {
		if err := unix.Sendto(s, []byte(payload), 0, &unix.SockaddrUnix{Name: address}); err != nil {
			t.Fatal(err)
		}
	}
	if got := heldBy(take(t, inventory.Options{}), p)[address].NextBytes; got != 7 {
		t.Errorf("the next datagram has %d bytes, want 7", got)
	}
}

func TestProcessesThatVanishAreNoError(t *testing.T) {
	holdertest.RequireRoot(t)
	vmtest.Natively(t, "they vanish from /proc in the same way everywhere")
	var stop atomic.Bool
	ended := make(chan error)
	go func() {
		for !stop.Load() {
			if err := exec.Command("unshare", "--net", "/bin/true").Run(); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	for range 30 {
		if _, err := inventory.Take(context.Background(), inventory.Options{All: true}); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestWhatCannotBeLookedAtIsNamed(t *testing.T) {
	holdertest.RequireRoot(t)
	p := holdertest.StartBy(t, "/run/systemd/notify", "sh", "-c", "echo ready; read x")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{roleEnv + "=unreadable"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Split(string(out), "\n")
	if !slices.Contains(names, fmt.Sprintf("sh[%d]", p.PID)) {
		t.Errorf("another user is told that this is unreadable: %q", names)
	}
	kernel := func(name string) bool { return strings.HasPrefix(name, "kthreadd[") }
	if slices.ContainsFunc(names, kernel) {
		t.Error("a kernel thread is unreadable")
	}
}

// Where no more files may be open, what is missing is not passed over in silence.
func TestThatNoMoreFilesMayBeOpenIsSaid(t *testing.T) {
	holdertest.RequireRoot(t)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	free, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(free)
	for more := range 3 {
		limit := unix.Rlimit{Cur: uint64(free + more), Max: before.Max}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		inv, err := inventory.Take(t.Context(), inventory.Options{})
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
		said := errors.Is(err, unix.EMFILE)
		if err == nil {
			said = slices.ContainsFunc(inv.LeftOut, func(why string) bool { return strings.HasPrefix(why, "no more files may be open") })
		}
		if !said {
			t.Errorf("with %d files more: %v, %+v", more, err, inv)
		}
	}
}

// TestAClientIsRefusedAsTheKernelWouldRefuseIt is about the process's own rights, not about the reader's.
func TestAClientIsRefusedAsTheKernelWouldRefuseIt(t *testing.T) {
	holdertest.RequireRoot(t)
	d := holdertest.Dir(t)
	if err := os.Chmod(d, 0o755); err != nil {
		t.Fatal(err)
	}
	closed := filepath.Join(d, "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	address := filepath.Join(closed, "notify.sock")
	holdertest.Start(t, "", nil, address)
	const waits = "echo ready; read x"
	root := holdertest.StartBy(t, address, "sh", "-c", waits)
	user := holdertest.StartBy(t, address, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", waits)
	inv := take(t, inventory.Options{})
	if c := clientOf(t, inv, root); c.State != inventory.ClientOK || c.Denied != nil {
		t.Errorf("root: %q, %+v", c.State, c.Denied)
	}
	c := clientOf(t, inv, user)
	want := &inventory.Denied{Path: events.Address(closed), Mode: "0700"}
	if diff := cmp.Diff(want, c.Denied); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if c.State != inventory.ClientDenied || c.Inode == 0 || c.UID == nil || *c.UID != 65534 {
		t.Errorf("%+v", c)
	}
}

func TestTheWatchdogIsWhatSdWatchdogEnabledMakesOfIt(t *testing.T) {
	holdertest.RequireRoot(t)
	for _, tc := range []struct {
		variables []string
		want      *inventory.Watchdog // its PID of another process if it is 1
	}{
		{nil, nil},
		{[]string{"WATCHDOG_PID=1"}, nil},
		{[]string{"WATCHDOG_USEC=2000000"}, &inventory.Watchdog{State: inventory.WatchdogOK, USec: eventtest.Ptr[uint64](2e6)}},
		{
			[]string{"WATCHDOG_USEC=2000000", "WATCHDOG_PID=1"},
			&inventory.Watchdog{State: inventory.WatchdogOther, USec: eventtest.Ptr[uint64](2e6), PID: eventtest.Ptr[uint32](1)},
		},
		{[]string{"WATCHDOG_USEC=2s"}, &inventory.Watchdog{State: inventory.WatchdogInvalid}},
		{
			[]string{"WATCHDOG_USEC=1", "WATCHDOG_PID=x"},
			&inventory.Watchdog{State: inventory.WatchdogInvalid, USec: eventtest.Ptr[uint64](1)},
		},
	} {
		command := slices.Concat([]string{"env"}, tc.variables, []string{"sh", "-c", "echo ready; read x"})
		p := holdertest.StartBy(t, "@nobody", command...)
		if diff := cmp.Diff(tc.want, clientOf(t, take(t, inventory.Options{}), p).Watchdog); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tc.variables, diff)
		}
	}
	const own = `exec env WATCHDOG_USEC=1000 WATCHDOG_PID=$$ sh -c "echo ready; read x"`
	p := holdertest.StartBy(t, "@nobody", "sh", "-c", own)
	w := clientOf(t, take(t, inventory.Options{}), p).Watchdog
	if w == nil || w.State != inventory.WatchdogOK || int(*w.PID) != p.PID {
		t.Errorf("its own: %+v", w)
	}
}

// Programs that set a title write over their environment. The first process of a service is listed, others are not.
func TestAServiceThatHasWrittenOverItsEnvironmentIsListed(t *testing.T) {
	holdertest.RequireRoot(t)
	const overwrite = `import os, sys
stat = open("/proc/self/stat").read().rsplit(")", 1)[1].split()
start, end = int(stat[50 - 3]), int(stat[51 - 3])
with open("/proc/self/mem", "r+b", buffering=0) as memory:
    memory.seek(start)
    memory.write(b"x" * (end - start))
child = os.fork()
if child == 0:
    sys.stdin.read()
    os._exit(0)
print("ready", flush=True)
sys.stdin.read()
os.waitpid(child, 0)`
	in := func(cgroup string) (listed []inventory.Client) {
		cgroup = holdertest.Cgroup(t, cgroup)
		holdertest.StartInCgroup(t, cgroup, "python3", "-c", overwrite)
		for _, c := range take(t, inventory.Options{}).Clients {
			if c.Cgroup == cgroup {
				listed = append(listed, c)
			}
		}
		return listed
	}
	if got := in("/title.service"); len(got) != 1 || got[0].State != inventory.ClientOverwritten || got[0].NotifySocket != "" {
		t.Errorf("a service: %+v", got)
	}
	if got := in("/session-1.scope"); len(got) != 0 {
		t.Errorf("a session: %+v", got)
	}
}

func TestTakeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := inventory.Take(ctx, inventory.Options{}); err == nil {
		t.Error("no error")
	}
}

// A program that binds the relative path "@x" is not where NOTIFY_SOCKET=@x leads.
func TestARelativePathIsNotTakenForAnAbstractName(t *testing.T) {
	holdertest.RequireRoot(t)
	name := fmt.Sprintf("@sdtrace-%d", os.Getpid())
	const bind = `import socket, os, sys; os.chdir(sys.argv[1]); s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(sys.argv[2])
print("ready", flush=True); sys.stdin.read()`
	p := holdertest.StartBy(t, "", "python3", "-c", bind, holdertest.Dir(t), name)
	client := holdertest.Start(t, name, nil)
	inv := take(t, inventory.Options{All: true})
	if c := clientOf(t, inv, client); c.State != inventory.ClientNobody {
		t.Errorf("NOTIFY_SOCKET=%s leads to %q, want nobody", name, c.State)
	}
	if _, found := heldBy(inv, p)["./"+name]; !found {
		t.Errorf("the socket is not listed as ./%s: %v", name, heldBy(inv, p))
	}
}
