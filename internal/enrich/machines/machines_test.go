// SPDX-License-Identifier: Apache-2.0

package machines

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/cgroupfs"
	"github.com/sdtrace/sdtrace/internal/holdertest"
	"github.com/sdtrace/sdtrace/pkg/events"
)

func TestMain(m *testing.M) {
	holdertest.Main()
	os.Exit(m.Run())
}

// removeAll removes control groups without processes, from the leaves up.
func removeAll(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeAll(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir)
}

// start starts this binary under another name in a control group, with a socket.
func start(t *testing.T, name, in, socket string) *holdertest.Process {
	t.Helper()
	program := filepath.Join(holdertest.Dir(t), name)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	return holdertest.StartInCgroup(t, in, program, socket)
}

// clocked is a Machines with a clock of the test's, by which a look takes no time, as slow as the
// machine may be.
func clocked() (m *Machines, now *time.Duration) {
	m, now = New(), new(time.Duration)
	*now = time.Hour
	m.now = func() time.Duration { return *now }
	m.cost = func(look func()) time.Duration { look(); return 0 }
	return m, now
}

func TestAServiceManagerIsRecognisedByWhatItIs(t *testing.T) {
	holdertest.RequireRoot(t)
	for _, tt := range []struct {
		name, program, scope, socket string
		want                         bool
	}{
		{"a service manager", "systemd", "/init.scope", "systemd/notify", true},
		{"another program", "system", "/init.scope", "systemd/notify", false},
		{"in another control group", "systemd", "/other.scope", "systemd/notify", false},
		{"with another socket", "systemd", "/init.scope", "notify.sock", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := holdertest.Cgroup(t, "/box")
			start(t, tt.program, holdertest.Cgroup(t, "/box"+tt.scope), filepath.Join(holdertest.Dir(t), tt.socket))
			id := events.Identity{Cgroup: root + "/system.slice/web.service"}
			m, _ := clocked()
			m.Refine(&id)
			if got := id.Machine == "box" && id.Unit == "web.service" && id.Slice == "system.slice"; got != tt.want {
				t.Errorf("refined to %+v", id)
			}
			if beside := m.RootOf(root + "2/system.slice/web.service"); beside != "" {
				t.Errorf("a control group of a longer name is below %s", beside)
			}
		})
	}
}

func TestTheInnermostServiceManagerCounts(t *testing.T) {
	holdertest.RequireRoot(t)
	outer, inner := holdertest.Cgroup(t, "/box"), holdertest.Cgroup(t, "/box/system.slice/inner.service/payload")
	start(t, "systemd", holdertest.Cgroup(t, "/box/init.scope"), filepath.Join(holdertest.Dir(t), "systemd/notify"))
	start(t, "systemd", holdertest.Cgroup(t, "/box/system.slice/inner.service/payload/init.scope"), filepath.Join(holdertest.Dir(t), "systemd/notify"))
	m, _ := clocked()
	if got := m.RootsOf(inner + "/system.slice/web.service"); !slices.Equal(got, []string{inner, outer}) {
		t.Errorf("the roots are %q", got)
	}
	for cgroup, want := range map[string]string{
		outer + "/system.slice/web.service":   outer,
		outer + "/system.slice/inner.service": outer,
		inner + "/system.slice/web.service":   inner,
		inner + "/init.scope":                 inner,
		filepath.Dir(outer):                   "",
	} {
		if got := m.RootOf(cgroup); got != want {
			t.Errorf("%s belongs to %q, want %q", cgroup, got, want)
		}
	}
}

func TestAServiceManagerThatComesAndGoesIsNoticed(t *testing.T) {
	holdertest.RequireRoot(t)
	root := holdertest.Cgroup(t, "/box")
	scope, unit := holdertest.Cgroup(t, "/box/init.scope"), holdertest.Cgroup(t, "/box/web.service")
	m, now := clocked()
	if got := m.RootOf(unit); got != "" {
		t.Fatalf("belongs to %q, with nobody there", got)
	}
	p := start(t, "systemd", scope, filepath.Join(holdertest.Dir(t), "systemd/notify"))
	*now += believed
	if got := m.RootOf(unit); got != root {
		t.Fatalf("belongs to %q, want %q", got, root)
	}
	kill(t, p)
	*now += believed
	if got := m.RootOf(unit); got != root {
		t.Errorf("belongs to %q: what is left belonged to %q", got, root)
	}
	start(t, "another", scope, filepath.Join(holdertest.Dir(t), "systemd/notify"))
	*now += believed
	if got := m.RootOf(unit); got != "" {
		t.Errorf("belongs to %q, where another program is now", got)
	}
}

// What a machine's systemd says while it starts must not make its first units another machine's.
func TestAServiceManagerThatIsComingIsNoticedWithItsFirstUnit(t *testing.T) {
	holdertest.RequireRoot(t)
	root := holdertest.Cgroup(t, "/box")
	m, now := clocked()
	if got := m.RootOf(root); got != "" {
		t.Fatalf("belongs to %q, with nobody there", got)
	}
	scope := holdertest.Cgroup(t, "/box/init.scope")
	if got := m.RootOf(scope); got != "" {
		t.Fatalf("belongs to %q, with nobody there", got)
	}
	*now += coming
	p := start(t, "systemd", scope, filepath.Join(holdertest.Dir(t), "private"))
	if got := m.RootOf(scope); got != "" {
		t.Fatalf("belongs to %q, which has no notify socket yet", got)
	}
	*now += coming
	kill(t, p)
	start(t, "systemd", scope, filepath.Join(holdertest.Dir(t), "systemd/notify"))
	for _, of := range []string{scope, root + "/web.service"} {
		if got := m.RootOf(of); got != root {
			t.Errorf("%s belongs to %q, want %q", of, got, root)
		}
	}
}

// That a control group has no init.scope must not be remembered: the first datagram after its
// service manager has started is attributed already.
func TestAServiceManagerIsNoticedByWhatIsNew(t *testing.T) {
	holdertest.RequireRoot(t)
	root := holdertest.Cgroup(t, "/box")
	m, _ := clocked()
	if got := m.RootOf(root); got != "" {
		t.Fatalf("belongs to %q, with nobody there", got)
	}
	start(t, "systemd", holdertest.Cgroup(t, "/box/init.scope"), filepath.Join(holdertest.Dir(t), "systemd/notify"))
	if got := m.RootOf(root + "/web.service"); got != root {
		t.Errorf("belongs to %q, want %q", got, root)
	}
}

// kill kills a process, and returns when it is gone.
func kill(t *testing.T, p *holdertest.Process) {
	t.Helper()
	pidfd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if err := unix.Kill(p.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, -1); err != nil {
		t.Fatal(err)
	}
}

// What is sent last may be read when its machine is gone, with its control groups.
func TestWhatIsGoneBelongedToWhomItDid(t *testing.T) {
	holdertest.RequireRoot(t)
	root := holdertest.Cgroup(t, "/box")
	unit := root + "/web.service"
	m, now := clocked()
	t.Run("while it is there", func(t *testing.T) {
		start(t, "systemd", holdertest.Cgroup(t, "/box/init.scope"), filepath.Join(holdertest.Dir(t), "systemd/notify"))
		if got := m.RootOf(unit); got != root {
			t.Fatalf("belongs to %q, want %q", got, root)
		}
	})
	removeAll(cgroupfs.Dir(root))
	*now += believed
	if got := m.RootOf(unit); got != root {
		t.Errorf("belongs to %q, want %q", got, root)
	}
}

// Many units of one machine do not ask it each for itself.
func TestManyCgroupsAskTheirRootOnce(t *testing.T) {
	holdertest.RequireRoot(t)
	root := holdertest.Cgroup(t, "/box")
	start(t, "systemd", holdertest.Cgroup(t, "/box/init.scope"), filepath.Join(holdertest.Dir(t), "systemd/notify"))
	m, _ := clocked()
	m.RootOf(root + "/first.service")
	until := m.now() + believed
	m.now = func() time.Duration { return until - 1 }
	for i := range 100 {
		m.RootOf(fmt.Sprintf("%s/%d.service", root, i))
	}
	if l, found := m.roots.Peek(root); !found || l.until != until {
		t.Errorf("asked again before %v: %+v", until, l)
	}
}

// With its share of the time spent, a look is put off, and nothing is guessed.
func TestLooksTakeABoundedShareOfTheTime(t *testing.T) {
	holdertest.RequireRoot(t)
	root := holdertest.Cgroup(t, "/box")
	start(t, "systemd", holdertest.Cgroup(t, "/box/init.scope"), filepath.Join(holdertest.Dir(t), "systemd/notify"))
	m, now := clocked()
	m.budget.Allows(*now)
	m.budget.Spend(time.Second)
	if got := m.RootOf(root + "/web.service"); got != "" {
		t.Errorf("belongs to %q, which it had no time to find out", got)
	}
	*now += time.Minute
	if got := m.RootOf(root + "/web.service"); got != root {
		t.Errorf("belongs to %q with time to look, want %q", got, root)
	}
}
