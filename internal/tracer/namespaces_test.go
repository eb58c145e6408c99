// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/identity"
	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest"
)

// hierarchy is a mounted cgroup hierarchy.
type hierarchy struct {
	// dir is where it is mounted, top the path of the cgroup mounted there.
	dir, top string
	// controllers are those of a v1 hierarchy, empty for v2.
	controllers []string
}

// hierarchies reads the mounted cgroup hierarchies.
func hierarchies(t *testing.T) []hierarchy {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []hierarchy
	for line := range strings.Lines(string(mounts)) {
		left, right, _ := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		h := hierarchy{dir: l[4], top: l[3]}
		switch r[0] {
		case "cgroup2":
		case "cgroup":
			h.controllers = strings.Split(r[2], ",")
		default:
			continue
		}
		found = append(found, h)
	}
	return found
}

// v2 is the cgroup v2 hierarchy.
func v2(t *testing.T) hierarchy {
	t.Helper()
	for _, h := range hierarchies(t) {
		if len(h.controllers) == 0 {
			return h
		}
	}
	t.Fatal("cgroup v2 is not mounted")
	return hierarchy{}
}

// v1 is the hierarchy of a cgroup v1 controller.
func v1(t *testing.T, controller string) (hierarchy, bool) {
	t.Helper()
	for _, h := range hierarchies(t) {
		for _, c := range h.controllers {
			if c == controller {
				return h, true
			}
		}
	}
	return hierarchy{}, false
}

// cgroup is a cgroup made by a test.
type cgroup struct {
	// dir is its directory, path its path in the hierarchy.
	dir, path string
}

// makeCgroup makes a cgroup below a directory of this run's own. It is removed
// at the end of the test, when the processes in it have to be gone.
func (h hierarchy) makeCgroup(t *testing.T, name string) cgroup {
	t.Helper()
	own := filepath.Base(base)
	c := cgroup{dir: filepath.Join(h.dir, own, name), path: filepath.Join(h.top, own, name)}
	for dir := h.dir; dir != c.dir; {
		rest := strings.TrimPrefix(c.dir, dir+"/")
		next, _, _ := strings.Cut(rest, "/")
		dir = filepath.Join(dir, next)
		if err := os.Mkdir(dir, 0o755); err == nil {
			t.Cleanup(func() {
				if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
					t.Errorf("removing a cgroup: %v", err)
				}
			})
		} else if !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	return c
}

// id is the inode number of the cgroup's directory.
func (c cgroup) id(t *testing.T) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(c.dir, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// where is what an event says about the sender's place.
type where struct {
	PID, NSPID, UID, GID                  uint32
	MntNS, NetNS, PIDNS, UserNS, CgroupNS uint32
	Cgroup, Controller                    string
	CgroupID                              uint64
}

func whereOf(e *events.Event) where {
	s := e.Sender
	return where{
		PID: s.PID, NSPID: s.NSPID, UID: s.UID, GID: s.GID,
		MntNS: s.MntNS, NetNS: s.NetNS, PIDNS: s.PIDNS, UserNS: s.UserNS, CgroupNS: s.CgroupNS,
		Cgroup: s.Cgroup, Controller: s.CgroupController, CgroupID: s.CgroupID,
	}
}

// whereabouts is what /proc says about a living agent in a cgroup.
func whereabouts(t *testing.T, a *agent, in cgroup) where {
	t.Helper()
	ns := func(name string) uint32 { return procLink(t, fmt.Sprintf("/proc/%d/ns/%s", a.pid, name)) }
	return where{
		PID: a.pid, NSPID: a.nspid, UID: a.uid, GID: a.gid,
		MntNS: ns("mnt"), NetNS: ns("net"), PIDNS: ns("pid"), UserNS: ns("user"), CgroupNS: ns("cgroup"),
		Cgroup: in.path, CgroupID: in.id(t),
	}
}

// inUserNamespace makes an agent root of a new user namespace, and an ordinary
// user outside.
func inUserNamespace(spec agentSpec) agentSpec {
	const first = 100000
	spec.uid, spec.gid = first, first
	spec.attr.Cloneflags |= unix.CLONE_NEWUSER
	spec.attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: first, Size: 65536}}
	spec.attr.GidMappings = spec.attr.UidMappings
	spec.attr.GidMappingsEnableSetgroups = true
	spec.attr.Credential = &syscall.Credential{}
	return spec
}

func TestEveryNamespace(t *testing.T) {
	const most = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC
	tests := []struct {
		name  string
		flags uintptr
		user  bool
		// cgroup namespace: made by the agent once it is in its cgroup, so
		// that it sees "/" where the host sees the path.
		cgroup bool
	}{
		{"none", 0, false, false},
		{"mnt", unix.CLONE_NEWNS, false, false},
		{"pid", unix.CLONE_NEWPID, false, false},
		{"net", unix.CLONE_NEWNET, false, false},
		{"uts", unix.CLONE_NEWUTS, false, false},
		{"user", 0, true, false},
		{"cgroup", 0, false, true},
		{"all but user", most, false, true},
		{"all", most, true, true},
	}
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		r := listenPath(t, "ns/notify.sock")
		host := procLink(t, "/proc/self/ns/cgroup")
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				in := v2(t).makeCgroup(t, "ns.slice/"+strings.ReplaceAll(test.name, " ", "-")+".service")
				spec := agentSpec{comm: "sdt-namespaces"}
				spec.attr.Cloneflags = test.flags
				if test.user {
					spec = inUserNamespace(spec)
				}
				a := startAgent(t, spec)
				join(t, in.dir, a.pid)
				if test.cgroup {
					a.begin(t, step{Op: "new cgroup namespace"})
					if err := a.greet(); err != nil {
						t.Fatal(err)
					}
				}
				want := whereabouts(t, a, in)
				if (want.CgroupNS != host) != test.cgroup {
					t.Fatalf("the agent's cgroup namespace is %d, the host's %d", want.CgroupNS, host)
				}
				if (a.nspid == 1) != (test.flags&unix.CLONE_NEWPID != 0) {
					t.Fatalf("the agent is process %d of its pid namespace", a.nspid)
				}
				tid := a.tid(t)
				a.must(t,
					step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
					step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts("READY=1")},
					step{Op: "connect", Sock: "s", Addr: r.addr},
					step{Op: "write", Sock: "s", Parts: parts("WATCHDOG=1")})
				r.drain()
				got := c.collect(t)
				if len(got) != 2 {
					t.Fatalf("captured %d events", len(got))
				}
				for i, payload := range []string{"READY=1", "WATCHDOG=1"} {
					if diff := cmp.Diff(want, whereOf(got[i])); diff != "" {
						t.Errorf("%s (-want +captured):\n%s", payload, diff)
					}
					s := sent(c, a, tid, r.addr, "dgram", payload)
					if diff := cmp.Diff(s, see(got[i])); diff != "" {
						t.Errorf("%s (-want +captured):\n%s", payload, diff)
					}
				}
			})
		}
	})
}

// TestMountNamespaceHasItsOwnPath sends to a name that only the sender's mount
// namespace has for the receiver's socket.
func TestMountNamespaceHasItsOwnPath(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		r := listenPath(t, "outside/notify.sock")
		inside := filepath.Join(root, "inside")
		if err := os.MkdirAll(inside, 0o755); err != nil {
			t.Fatal(err)
		}
		spec := agentSpec{comm: "sdt-bind-mount"}
		spec.attr.Cloneflags = unix.CLONE_NEWNS
		// Makes its mounts private, so that the host does not get ours.
		spec.attr.Unshareflags = unix.CLONE_NEWNS
		a := startAgent(t, spec)
		path := filepath.Join(inside, "notify.sock")
		a.must(t,
			step{Op: "bind mount", Path: filepath.Dir(r.path()), Target: inside},
			step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
			step{Op: "sendto", Sock: "s", Addr: pathAddr(path), Parts: parts("READY=1")})
		if got := r.drain(); len(got) != 1 {
			t.Fatalf("received %q", got)
		}
		got := c.collect(t)
		if len(got) != 1 {
			t.Fatalf("captured %d events", len(got))
		}
		if string(got[0].Socket.Address) != path {
			t.Errorf("sent to %s, captured %q", path, got[0].Socket.Address)
		}
		checkSocket(t, c, got[0], r, unix.SOCK_DGRAM)
	})
}

// TestClaimedIDsOfAUserNamespace holds that ids written in another user
// namespace are translated or left out.
func TestClaimedIDsOfAUserNamespace(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		c := named(t, backend)
		r := listenPath(t, "userns/notify.sock")
		spec := inUserNamespace(agentSpec{comm: "sdt-userns"})
		spec.attr.Cloneflags |= unix.CLONE_NEWPID
		a := startAgent(t, spec)
		a.must(t,
			step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
			step{Op: "sendmsg", Sock: "s", Addr: r.addr, Parts: parts("READY=1"), Creds: &creds{PID: 1, UID: 0, GID: 33}})
		got := c.collect(t)
		if len(got) != 1 || got[0].Claimed == nil {
			t.Fatalf("captured %+v", got)
		}
		claimed := got[0].Claimed
		if claimed.PID != 0 && claimed.PID != a.pid || claimed.NSPID != 0 && claimed.NSPID != 1 || claimed.PID|claimed.NSPID == 0 {
			t.Errorf("process 1 of the namespace is %d, captured %+v", a.pid, claimed)
		}
		if (claimed.PID == 0 || claimed.NSPID == 0) && c.Knows().Receivers && !mayMiss() {
			t.Errorf("the datagram tells the one number, and the message the other, captured %+v", claimed)
		}
		if claimed.UID != nil && *claimed.UID != a.uid {
			t.Errorf("user 0 of the namespace is %d, captured %d", a.uid, *claimed.UID)
		}
		if claimed.GID != nil && *claimed.GID != a.gid+33 {
			t.Errorf("group 33 of the namespace is %d, captured %d", a.gid+33, *claimed.GID)
		}
	})
}

// Who owns a part of the tree can hide in it from nobody.
func TestADeepOrLongControlGroupIsToldAndFiltered(t *testing.T) {
	vmtest.OnlyOn(t, "walks up the tree, as the oldest verifier and the newest take them",
		"sid-amd64", "prove:5.10-amd64", "prove:6.12-amd64")
	base := v2(t).makeCgroup(t, "hidden.slice/hidden.service")
	groups := map[string]cgroup{"READY=1": base}
	for text, names := range map[string]string{
		"STATUS=deep": strings.Repeat("/d", 40),
		"STATUS=long": strings.Repeat("/"+strings.Repeat("n", 200), 6),
	} {
		groups[text] = v2(t).makeCgroup(t, "hidden.slice/hidden.service"+names)
	}
	eachBackend(t, func(t *testing.T, backend string) {
		r := listenPath(t, "hidden/notify.sock")
		for name, filter := range map[string]tracer.Filter{
			"no filter": {Sockets: []string{r.path()}},
			"unit":      {Units: []string{"hidden.service"}},
			"cgroup":    {Cgroups: []string{base.dir}},
		} {
			t.Run(name, func(t *testing.T) {
				c := openCapture(t, tracer.Options{Backend: backend, Filter: filter})
				for text, in := range groups {
					a := startAgent(t, agentSpec{comm: "sdt-hidden"})
					join(t, in.dir, a.pid)
					a.must(t,
						step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM},
						step{Op: "sendto", Sock: "s", Addr: r.addr, Parts: parts(text)})
					got := from(c.buffered(t), a)
					a.stop()
					if len(got) != 1 || string(got[0].Payload) != text {
						t.Errorf("%s: captured %d events", text, len(got))
						continue
					}
					if s := got[0].Sender; s.Identity != identity.Parse(in.path) || s.CgroupID != in.id(t) {
						t.Errorf("%s: captured in %q, which has %d bytes of %d", text, s.Cgroup, len(s.Cgroup), len(in.path))
					}
				}
			})
		}
	})
}
