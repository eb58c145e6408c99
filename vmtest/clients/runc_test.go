// SPDX-License-Identifier: Apache-2.0

package clients_test

import (
	"bytes"
	"crypto/rand"
	"debug/elf"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/pkg/events"
)

//go:embed testdata/config.json
var containerConfig []byte

// runc puts a socket of its own into the container and sends on what says that
// the container is ready. Both halves are to be seen, each with its true sender.
func TestBothHalvesOfRuncsRelayAreCaptured(t *testing.T) {
	bundle := makeBundle(t)
	withBackend(t, func(t *testing.T, backend string) {
		address := filepath.Join(base, "runc-"+backend, "notify.sock")
		state := filepath.Join(base, "r") // short: with id and notify.sock it has to fit into sun_path
		id := newContainerID(t)
		// The address that a connected sender in the container has for its peer.
		relay := filepath.Join(state, id, "notify", "notify.sock")
		c := open(t, backend, tracer.Filter{Sockets: []string{address, relay, notifyInContainer}})
		l := listen(t, address)

		cmd := exec.CommandContext(await.Context(t), "runc", "--root", state, "run", "--bundle", bundle, id)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "NOTIFY_SOCKET=" + address}
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			_ = exec.Command("runc", "--root", state, "delete", "--force", id).Run()
			t.Fatalf("running a container: %v\n%s%s", err, stdout.String(), stderr.String())
		}
		runc := uint32(cmd.Process.Pid)
		arrived, err := l.finish()
		if err != nil {
			t.Fatal(err)
		}
		var container insideContainer
		if err := json.Unmarshal(stdout.Bytes(), &container); err != nil {
			t.Fatalf("decoding what the container says, %q: %v", stdout.String(), err)
		}

		var fromContainer, fromRunc []*events.Event
		for _, e := range c.drain(t) {
			if string(e.Socket.Address) == address {
				fromRunc = append(fromRunc, e)
				checkEvent(t, e, backend, l.inode, address)
			} else if e.Sender.PIDNS == container.Namespaces.PID {
				// Other containers of this machine may send to the same name.
				fromContainer = append(fromContainer, e)
				checkEvent(t, e, backend, e.Socket.Inode, relay)
			}
		}

		self, err := ownNamespaces()
		if err != nil {
			t.Fatal(err)
		}
		var want []seen
		for _, d := range arrived {
			want = append(want, seen{
				Payload: d.Payload, FDs: d.FDs, Comm: "runc", Address: address, Type: "dgram",
				PID: runc, NSPID: runc, PPID: uint32(os.Getpid()), Namespaces: self,
			})
		}
		if diff := cmp.Diff(want, seenOf(fromRunc)); diff != "" {
			t.Errorf("captured something else from runc than was received (-want +got):\n%s", diff)
		}
		for _, payload := range []string{"READY=1\n", "MAINPID=" + strconv.Itoa(int(runc)) + "\n"} {
			if !hasPayload(arrived, payload) {
				t.Errorf("runc did not send %q on: %+v", payload, arrived)
			}
		}

		want = nil
		for i, m := range containerMessages {
			s := seen{
				Payload: m.payload, Comm: "container", Address: notifyInContainer, Type: "dgram",
				NSPID: container.PID, PPID: runc, Namespaces: container.Namespaces,
			}
			if m.connected {
				s.Address = relay
			}
			if i < len(fromContainer) {
				// Nobody but the kernel knows it once the container is gone; that
				// it is another one than the container's own is checked below.
				s.PID = fromContainer[i].Sender.PID
			}
			want = append(want, s)
		}
		if diff := cmp.Diff(want, seenOf(fromContainer)); diff != "" {
			t.Errorf("captured something else from the container (-want +got):\n%s", diff)
		}
		for _, e := range fromContainer {
			s := e.Sender
			if s.PID <= 1 || s.PID == s.NSPID || s.PID == runc || s.PID != fromContainer[0].Sender.PID {
				t.Errorf("payload %q: pid is %d, want the container's on the host, other than %d and %d", e.Payload, s.PID, s.NSPID, runc)
			}
			if s.PIDNS == self.PID || s.MntNS == self.Mnt {
				t.Errorf("payload %q: pid namespace %d and mount namespace %d are the host's", e.Payload, s.PIDNS, s.MntNS)
			}
			if !strings.HasSuffix(s.Cgroup, id) || !inCgroupLines(container.Cgroups, s.CgroupController, s.Cgroup) {
				t.Errorf("payload %q: cgroup is %q of controller %q, want the one of %q", e.Payload, s.Cgroup, s.CgroupController, container.Cgroups)
			}
			if s.Container == nil || s.Container.ID != id {
				t.Errorf("payload %q: container is %+v, want id %s", e.Payload, s.Container, id)
			}
		}
	})
}

func hasPayload(all []datagram, payload string) bool {
	for _, d := range all {
		if d.Payload == payload {
			return true
		}
	}
	return false
}

func newContainerID(t *testing.T) string {
	t.Helper()
	id := make([]byte, 32)
	if _, err := rand.Read(id); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(id)
}

// makeBundle makes an OCI bundle whose file system holds this binary alone,
// under the name of the role it plays.
func makeBundle(t *testing.T) string {
	t.Helper()
	bundle := t.TempDir()
	rootfs := filepath.Join(bundle, "rootfs")
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(rootfs, "container")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if isStatic(t, exe) {
		content, err := os.ReadFile(exe)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(program, content, 0o755); err != nil {
			t.Fatal(err)
		}
	} else {
		build := exec.CommandContext(await.Context(t), "go", "test", "-c", "-o", program, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if output, err := build.CombinedOutput(); err != nil {
			t.Fatalf("building the container's program: %v\n%s", err, output)
		}
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), containerConfig, 0o644); err != nil {
		t.Fatal(err)
	}
	return bundle
}

// isStatic reports whether an executable asks for no dynamic loader.
func isStatic(t *testing.T, exe string) bool {
	t.Helper()
	f, err := elf.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}
