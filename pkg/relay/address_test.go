// SPDX-License-Identifier: Apache-2.0

package relay_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/pkg/relay"
	"github.com/sdtrace/sdtrace/vmtest"
)

func TestParseAddress(t *testing.T) {
	for _, good := range []string{
		"/run/systemd/notify", "@notify", "vsock:2:1234", "vsock-stream:2:1", "vsock-dgram:3:1",
		"vsock-seqpacket:4294967294:1", "/" + strings.Repeat("x", 300), "@" + strings.Repeat("x", 107),
	} {
		if a, err := relay.ParseAddress(good); err != nil || a.String() != good {
			t.Errorf("ParseAddress(%q) = %v, %v", good, a, err)
		}
	}
	for _, bad := range []string{
		"", "notify", "unix:/run/notify", "/", "/run/", "@", "/a\x00b", "@" + strings.Repeat("x", 108),
		"vsock", "vsock:2", "vsock::1", "vsock:2:1:1", "vsock:4294967295:1", "vsock:x:1", "vsock-raw:2:1",
	} {
		if a, err := relay.ParseAddress(bad); err == nil {
			t.Errorf("ParseAddress(%q) = %v", bad, a)
		}
	}
}

// longDir makes a directory of which the path does not fit into sun_path.
func longDir(t testing.TB) string {
	dir := filepath.Join(shortDir(t), strings.Repeat("d", 120))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// connectName is a name of the file that fits into sun_path.
func connectName(t testing.TB, path string) string {
	fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fmt.Sprintf("/proc/%d/fd/%d/%s", os.Getpid(), fd, filepath.Base(path))
}

func TestPathsMayBeLongerThanSunPath(t *testing.T) {
	dir := longDir(t)
	r := newRig(t, func(c *relay.Config) { c.Members[0].Listen = filepath.Join(dir, "c.sock") })
	startAgent(t).send(connectName(t, filepath.Join(dir, "c.sock")), "STATUS=in")
	r.host.expect("STATUS=in")

	// Upstream: a long directory, and a name that is too long by itself.
	for _, name := range []string{"h.sock", strings.Repeat("h", 200)} {
		long := filepath.Join(longDir(t), name)
		up := newRig(t, func(c *relay.Config) { c.Upstream, _ = relay.ParseAddress(long) })
		a := startAgent(t)
		for i := range 3 {
			// The relay may not cling to what it has found first.
			if err := os.Rename(up.host.path, long); err != nil {
				t.Fatal(err)
			}
			text := fmt.Sprintf("STATUS=%d", i)
			a.send(up.socket, text)
			up.host.expect(text)
			os.Remove(long)
			up.host.close()
			up.host.listen()
		}
	}
}

func TestTheSocketAppearsByItsNameAndWithItsMode(t *testing.T) {
	dir := shortDir(t)
	upstream, err := relay.ParseAddress(filepath.Join(dir, "h"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Umask(unix.Umask(0o077))
	path := filepath.Join(dir, "c.sock")
	for range 2 { // the second time over what a relay that was killed has left
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(s)
		r, err := relay.New(relay.Config{
			Upstream: upstream, Policy: relay.DefaultPolicy(), Members: []relay.Member{{Listen: path}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(s, &unix.SockaddrUnix{Name: path}); err != nil {
			t.Fatal(err)
		}
		peer, err := unix.Getpeername(s)
		if err != nil {
			t.Fatal(err)
		}
		if name := peer.(*unix.SockaddrUnix).Name; name != path {
			t.Errorf("bound to %q, want %q", name, path)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o666 {
			t.Errorf("mode %v, want rw-rw-rw-", info.Mode())
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := bindAndLeave(path); err != nil {
			t.Fatal(err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v, want the last socket alone", entries)
	}
}

// bindAndLeave leaves the file of a socket that nobody has any more.
func bindAndLeave(path string) error {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	return unix.Bind(s, &unix.SockaddrUnix{Name: path})
}

func TestAbstractAddressesLiveInTheContainersNetworkNamespace(t *testing.T) {
	a := startAgent(t, ownNamespaces...)
	name := fmt.Sprintf("@sdtrace-test-%d", os.Getpid())
	r := newRig(t, func(c *relay.Config) {
		c.Members[0].Listen = name
		c.Members[0].ListenNetNS = fmt.Sprintf("/proc/%d/ns/net", a.pid)
		c.Members[0].Container.PID = a.pid
	})
	a.send(name, "READY=1")
	r.host.expect("READY=1")
	if got := startAgent(t).do(order{Do: "send", Socket: name, Payload: []byte("READY=1")}); got.Errno != unix.ECONNREFUSED {
		t.Errorf("outside the namespace sending gives %v, want ECONNREFUSED", got.Errno)
	}
	awaitNoThreadElsewhere(t)
}

// awaitNoThreadElsewhere waits until the thread has ended that was in another network
// namespace.
func awaitNoThreadElsewhere(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	await.Until(t, "no thread is left in another network namespace", func() bool {
		tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
		if err != nil || len(tasks) == 0 {
			t.Fatal("no threads", err)
		}
		for _, task := range tasks {
			other, err := netns.GetFromPath(task)
			if err != nil {
				continue // it has ended
			}
			elsewhere := !own.Equal(other)
			other.Close()
			if elsewhere {
				return false
			}
		}
		return true
	})
}

func TestAnAbstractUpstreamIsReached(t *testing.T) {
	name := fmt.Sprintf("@sdtrace-host-%d", os.Getpid())
	h := newHost(t, name)
	r := newRig(t, func(c *relay.Config) { c.Upstream, _ = relay.ParseAddress(name) })
	r.host = h
	startAgent(t).send(r.socket, "READY=1")
	h.expect("READY=1")
}

func TestASocketThatIsBoundAlreadyLosesNothing(t *testing.T) {
	path := filepath.Join(shortDir(t), "pre.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	file, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := unix.SetsockoptInt(int(file.Fd()), unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		t.Fatal(err)
	}
	a := startAgent(t)
	a.send(path, "STATUS=before there was a relay")
	r := newRig(t, func(c *relay.Config) { c.Members[0] = relay.Member{File: file} })
	r.host.expect("STATUS=before there was a relay")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	// And the socket outlives the relay, for the next one.
	a.send(path, "STATUS=after it")
	next := newRig(t, func(c *relay.Config) { c.Members[0] = relay.Member{File: file} })
	next.host.expect("STATUS=after it")
}

func TestASocketInUseIsNotTakenAway(t *testing.T) {
	r := newRig(t)
	upstream, _ := relay.ParseAddress(r.host.path)
	config := relay.Config{Upstream: upstream, Members: []relay.Member{{Listen: r.socket}}}
	if second, err := relay.New(config); err == nil {
		second.Close()
		t.Error("a second relay has taken the socket of the first")
	}
	file := filepath.Join(filepath.Dir(r.socket), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	config.Members[0].Listen = file
	if second, err := relay.New(config); err == nil {
		second.Close()
		t.Error("a file has been replaced by a socket")
	}
	// What a relay that was killed has left is no obstacle.
	stale := filepath.Join(filepath.Dir(r.socket), "stale")
	newHost(t, stale).fd, _ = unix.Dup(2)
	config.Members[0].Listen = stale
	if second, err := relay.New(config); err == nil {
		second.Close()
	}
	startAgent(t).send(r.socket, "STATUS=first")
	r.host.expect("STATUS=first")
}

func TestOnlyTheOwnSocketIsRemoved(t *testing.T) {
	r := newRig(t)
	if err := os.Remove(r.socket); err != nil {
		t.Fatal(err)
	}
	other := newHost(t, r.socket)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	startAgent(t).send(r.socket, "STATUS=to the other")
	other.expect("STATUS=to the other")
}

func TestErrorsOfNewAreOneLine(t *testing.T) {
	host := newHost(t, filepath.Join(shortDir(t), "h"))
	upstream, _ := relay.ParseAddress(host.path)
	socket := filepath.Join(filepath.Dir(host.path), "c")
	for name, config := range map[string]relay.Config{
		"no member":        {Upstream: upstream},
		"no upstream":      {Members: []relay.Member{{Listen: socket}}},
		"no directory":     {Upstream: upstream, Members: []relay.Member{{Listen: "/nowhere/at/all"}}},
		"vsock":            {Upstream: upstream, Members: []relay.Member{{Listen: "vsock:2:1"}}},
		"relative":         {Upstream: upstream, Members: []relay.Member{{Listen: "notify.sock"}}},
		"path in a netns":  {Upstream: upstream, Members: []relay.Member{{Listen: socket, ListenNetNS: "/proc/self/ns/net"}}},
		"no such netns":    {Upstream: upstream, Members: []relay.Member{{Listen: "@x", ListenNetNS: "/nowhere"}}},
		"no such process":  {Upstream: upstream, Members: []relay.Member{{Listen: socket, Container: relay.Container{PID: 1 << 30}}}},
		"no pid namespace": {Upstream: upstream, Members: []relay.Member{{Listen: socket, Container: relay.Container{PID: os.Getpid()}}}},
		"nowhere":          {Upstream: upstream, Members: []relay.Member{{}}},
		"two sockets":      {Upstream: upstream, Members: []relay.Member{{Listen: socket, File: os.Stdin}}},
		"no names":         {Upstream: upstream, Members: []relay.Member{{Listen: socket}, {Listen: socket + "2"}}},
		"one name":         {Upstream: upstream, Members: []relay.Member{{Name: "a", Listen: socket}, {Name: "a", Listen: socket + "2"}}},
		"no access":        {Upstream: upstream, Members: []relay.Member{{Listen: socket, Access: 9}}},
		"no process":       {Upstream: upstream, Members: []relay.Member{{Listen: socket, Container: relay.Container{PID: -5}}}},
		"no socket":        {Upstream: upstream, Members: []relay.Member{{File: os.Stderr}}},
	} {
		before := len(openFDs(t))
		r, err := relay.New(config)
		if err == nil {
			r.Close()
			t.Errorf("%s: no error", name)
			continue
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q", name, err)
		}
		if after := len(openFDs(t)); after != before {
			t.Errorf("%s: %d file descriptors are open, %d before", name, after, before)
		}
	}
}

// Two relays that are started at once where one that was killed has left its socket: one of them has the name.
func TestOneOfTwoRelaysHasTheSocket(t *testing.T) {
	vmtest.Natively(t, "names in a directory")
	host := newHost(t, filepath.Join(shortDir(t), "h.sock"))
	upstream, err := relay.ParseAddress(host.path)
	if err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	for i := range 200 {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := bindAndLeave(path); err != nil {
			t.Fatal(err)
		}
		relays := make(chan *relay.Relay, 2)
		for range 2 {
			go func() {
				r, err := relay.New(relay.Config{Upstream: upstream, Members: []relay.Member{{Listen: path}}})
				if err != nil && !errors.Is(err, unix.EADDRINUSE) {
					t.Errorf("it is refused with %v", err)
				}
				relays <- r
			}()
		}
		n := 0
		for range 2 {
			if r := <-relays; r != nil {
				n++
				defer r.Close()
			}
		}
		if n != 1 {
			t.Fatalf("%d of two have it", n)
		}
		if err := unix.Access(path, unix.W_OK); err != nil {
			t.Fatalf("the socket of the one: %v", err)
		}
	}
}

func TestARelayDoesNotForwardToItself(t *testing.T) {
	dir := shortDir(t)
	socket, link := filepath.Join(dir, "s"), filepath.Join(dir, "link")
	if err := os.Symlink(socket, link); err != nil {
		t.Fatal(err)
	}
	abstract := fmt.Sprintf("@sdtrace-own-%d", os.Getpid())
	for address, listen := range map[string]string{socket: socket, link: socket, abstract: abstract} {
		upstream, err := relay.ParseAddress(address)
		if err != nil {
			t.Fatal(err)
		}
		r, err := relay.New(relay.Config{Upstream: upstream, Members: []relay.Member{{Listen: listen}}})
		if err == nil {
			r.Close()
			t.Errorf("%s is taken as the host of a relay at %s", address, listen)
		}
	}
}

func TestARelayRunsOnceAndNotWhenItIsClosed(t *testing.T) {
	r := newRig(t)
	a := startAgent(t)
	a.send(r.socket, "READY=1")
	r.host.expect("READY=1")
	if err := r.relay.Run(t.Context()); err == nil {
		t.Error("it runs twice at once")
	}
	closed := newWaitingRig(t)
	if err := closed.relay.Close(); err != nil {
		t.Fatal(err)
	}
	if err := closed.relay.Run(t.Context()); err == nil {
		t.Error("it runs though it is closed")
	}
	if name := relay.Key(200).String(); name != "Key(200)" {
		t.Errorf("a key that there is not is %q", name)
	}
}
