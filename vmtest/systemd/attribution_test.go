// SPDX-License-Identifier: Apache-2.0

package systemd_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/inventory"
	"github.com/sdtrace/sdtrace/vmtest"
)

// backends lists what has to work on this kernel.
func backends() []string {
	list := os.Getenv("SDTRACE_BACKENDS")
	if list == "" {
		list = "tracepoint"
	}
	return strings.Split(list, ",")
}

// Each has a socket of the same name, in namespaces of its own, and hears something
// at the same time.
func TestNoDatagramIsAttributedToAnotherSystemd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
	if testing.Short() {
		t.Skip("not declared: a minute and more")
	}
	if len(managers) == 0 {
		t.Skip("not declared: no systemd is booted on this kernel")
	}
	// A relay in a service of each, and what it is for.
	services := map[string]*service{}
	containers := map[string]*container{}
	inodes := map[string]uint64{}
	for _, m := range managers {
		s := m.define(t, unit{service: []string{"Type=notify"}})
		services[s.name], containers[s.name] = s, s.started(t)
	}
	inv, err := inventory.Take(t.Context(), inventory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range services {
		socket, found := socketOf(inv, s.m.PID(), "/run/systemd/notify")
		if !found {
			t.Fatalf("the notify socket of pid %d is missing", s.m.PID())
		}
		inodes[name] = uint64(socket.Inode)
	}
	for _, backend := range backends() {
		t.Run(backend, func(t *testing.T) {
			c := startCapture(t, "--backend", backend, "--socket", "/run/systemd/notify", "-o", "json")
			// Until it is proven where an address leads to that changed when the sender was
			// started: docs/events.md.
			rounds := 0
			await.Until(t, "a datagram to each systemd is attributed", func() bool {
				for name, c := range containers {
					c.tell(t, fmt.Sprintf("STATUS=%s %d", name, rounds))
				}
				rounds++
				proven := map[string]bool{}
				for _, record := range c.records(t) {
					e := record.Event
					if isStatus(e) && e.Receiver != nil && e.Receiver.PID != 0 && e.Sender.Machine != "" &&
						e.Receiver.Machine != "" {
						proven[e.Sender.Unit] = true
					}
				}
				for name := range services {
					if !proven[name+".service"] {
						return false
					}
				}
				return true
			})
			sent, attributed, read := map[string]int{}, map[string]int{}, map[string]int{}
			of := map[uint64]*service{} // by seq
			for _, record := range c.end(t) {
				if r := record.Receipt; r != nil && of[r.Seq] != nil {
					read[of[r.Seq].name]++
					if want := of[r.Seq].m.PID(); int(r.By.PID) != want {
						t.Errorf("%s: a datagram for %d was read by %s[%d]", of[r.Seq].m.Version, want, r.By.Comm, r.By.PID)
					}
				}
				e := record.Event
				if !isStatus(e) {
					continue
				}
				name, _, _ := strings.Cut(strings.TrimPrefix(string(e.Payload), "STATUS="), " ")
				s := services[name]
				of[e.Seq] = s
				sent[name]++
				if want := "/" + filepath.Base(s.m.Cgroup) + "/system.slice/" + name + ".service"; e.Sender.Cgroup != want {
					t.Errorf("%s: the sender is in %s, want %s", s.m.Version, e.Sender.Cgroup, want)
				}
				machine := filepath.Base(s.m.Cgroup)
				// A look that takes more than its share of the time, as in emulation, is put off:
				// whose a datagram is may be unknown then, but never wrong.
				if known := e.Sender.Machine+e.Sender.Unit != ""; (known || vmtest.Native()) &&
					(e.Sender.Machine != machine || e.Sender.Unit != name+".service" || e.Sender.Slice != "system.slice") {
					t.Errorf("%s: the sender is %+v, want %s.service of %s", s.m.Version, e.Sender.Identity, name, machine)
				}
				if e.Receiver == nil || e.Receiver.PID == 0 {
					continue
				}
				attributed[name]++
				if known := e.Receiver.Machine+e.Receiver.Unit != ""; (known || vmtest.Native()) &&
					(e.Receiver.Machine != machine || e.Receiver.Unit != "init.scope") {
					t.Errorf("%s: the receiver is %+v, want init.scope of %s", s.m.Version, e.Receiver.Identity, machine)
				}
				if want := s.m.PID(); int(e.Receiver.PID) != want || e.Socket.Inode != inodes[name] {
					t.Errorf("%s: went to socket %d of %s[%d], want %d of %d", s.m.Version, e.Socket.Inode, e.Receiver.Comm,
						e.Receiver.PID, inodes[name], want)
				}
			}
			for name, s := range services {
				if sent[name] != rounds || attributed[name] == 0 {
					t.Errorf("%s: of %d datagrams %d were captured and %d attributed", s.m.Version, rounds, sent[name], attributed[name])
				}
				if backend == "fentry" && (attributed[name] != rounds || read[name] != rounds) {
					t.Errorf("%s: of %d datagrams %d were attributed and %d read", s.m.Version, rounds, attributed[name], read[name])
				}
			}
		})
	}
}

// isStatus reports whether a datagram is one that a container was told to send. The relay has its
// own besides, such as barriers.
func isStatus(e *events.Event) bool {
	return e != nil && strings.HasPrefix(string(e.Payload), "STATUS=web")
}

// A unit is named by whose it is: the host has none of these, and each systemd its own.
func TestUnitsAreNamedByTheirMachine(t *testing.T) {
	vmtest.Natively(t, "names of units, which no kernel tells otherwise")
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
	if testing.Short() {
		t.Skip("not declared: a minute and more")
	}
	if len(managers) < 2 {
		t.Skip("not declared: no systemd is booted on this kernel")
	}
	one, other := managers[0], managers[1]
	service := one.define(t, unit{service: []string{"Type=notify"}})
	c := service.started(t)
	machine, name := filepath.Base(one.Cgroup), service.name
	for _, backend := range backends() {
		t.Run(backend, func(t *testing.T) {
			captures := map[string]*capture{}
			for _, unit := range []string{
				machine + ":" + name, "*:" + name, machine[:len(machine)-1] + "?:" + name, machine + ":system.slice",
				name, filepath.Base(other.Cgroup) + ":" + name, machine + ":another",
			} {
				captures[unit] = startCapture(t, "--backend", backend, "--unit", unit, "--key", "STATUS", "-o", "json")
			}
			c.tell(t, "STATUS=named")
			for unit, capture := range captures {
				got := 0
				for _, record := range capture.end(t) {
					if e := record.Event; e != nil && string(e.Payload) == "STATUS=named" {
						got++
					}
				}
				want := 0
				switch unit {
				case machine + ":" + name, "*:" + name, machine + ":system.slice", machine[:len(machine)-1] + "?:" + name:
					want = 1
				}
				// What the relay behind the service says to its systemd counts, too.
				if (got > 0) != (want > 0) {
					t.Errorf("--unit %s: %d, want %d", unit, got, want)
				}
			}
		})
	}
}

// capture is an sdtrace that writes JSON Lines.
type capture struct {
	cmd    *exec.Cmd
	stdout string // a file
	stderr bytes.Buffer
	ended  chan error
}

// startCapture returns when sdtrace captures.
func startCapture(t *testing.T, args ...string) *capture {
	t.Helper()
	dir := t.TempDir()
	address := filepath.Join(dir, "ready")
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ready.Close() })
	c := &capture{
		cmd: exec.CommandContext(t.Context(), sdtrace, args...), stdout: filepath.Join(dir, "stdout"),
		ended: make(chan error, 1),
	}
	stdout, err := os.Create(c.stdout)
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	c.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+address)
	c.cmd.Stdout, c.cmd.Stderr = stdout, &c.stderr
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		c.ended <- c.cmd.Wait()
		ready.Close() // nobody will be ready any more
	}()
	if _, err := ready.Read(make([]byte, 64)); err != nil {
		t.Fatalf("sdtrace is not ready: %v, %v\n%s", err, await.Receive(t, "its end", c.ended), c.stderr.String())
	}
	return c
}

// records are those written so far.
func (c *capture) records(t *testing.T) (records []events.Record) {
	t.Helper()
	text, err := os.ReadFile(c.stdout)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // the rest is still to come
		}
		record, err := events.Decode(line)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, record)
	}
	return records
}

// end ends the capture, and returns all it has written.
func (c *capture) end(t *testing.T) []events.Record {
	t.Helper()
	if err := c.cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := await.Receive(t, "the end of sdtrace", c.ended); err != nil {
		t.Fatalf("sdtrace: %v\n%s", err, c.stderr.String())
	}
	return c.records(t)
}
