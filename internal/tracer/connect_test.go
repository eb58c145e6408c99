// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/vmtest"
)

// A client that connects first, as most libraries do, does not get as far as a send.
func TestAConnectThatFailsIsCaptured(t *testing.T) {
	vmtest.OnlyOn(t, "the function that connects, and the end of its system call",
		"5.10-amd64", "sid-amd64", "sid-arm64", "prove:6.1-amd64", "prove:6.12-amd64", "prove:6.1-arm64")
	eachBackend(t, func(t *testing.T, backend string) {
		if backend == "tracepoint" {
			backend += "/sys_exit" // the other hook sees what is sent, and here nothing is
		}
		c := openCapture(t, tracer.Options{Backend: backend})
		a := startAgent(t, agentSpec{comm: "sdt-connecting"})
		nobody := startAgent(t, agentSpec{comm: "sdt-nobody", uid: 65534, gid: 65534})
		for _, test := range []struct {
			name  string
			agent *agent
			kind  int
			addr  func(t *testing.T) []byte
			errno unix.Errno // 0: it does not fail
			seen  bool
		}{
			{"no such path", a, unix.SOCK_DGRAM, func(*testing.T) []byte { return pathAddr(filepath.Join(root, "nowhere/notify.sock")) }, unix.ENOENT, true},
			{"receiver is gone", a, unix.SOCK_DGRAM, func(t *testing.T) []byte {
				r := listenPath(t, "left/notify.sock")
				r.close()
				return r.addr
			}, unix.ECONNREFUSED, true},
			{"another type", a, unix.SOCK_DGRAM, func(t *testing.T) []byte {
				return listen(t, pathAddr(filepath.Join(root, "stream/notify.sock")), unix.SOCK_STREAM).addr
			}, unix.EPROTOTYPE, true},
			{"no permission", nobody, unix.SOCK_DGRAM, func(t *testing.T) []byte {
				r := listenPath(t, "closed/notify.sock")
				if err := os.Chmod(r.path(), 0o700); err != nil {
					t.Fatal(err)
				}
				return r.addr
			}, unix.EACCES, true},
			{"it does not fail", a, unix.SOCK_DGRAM, func(t *testing.T) []byte { return listenPath(t, "open/notify.sock").addr }, 0, false},
			{"no notify socket", a, unix.SOCK_DGRAM, func(*testing.T) []byte { return pathAddr(filepath.Join(root, "nowhere/log.sock")) }, unix.ENOENT, false},
			{"a stream", a, unix.SOCK_STREAM, func(*testing.T) []byte { return pathAddr(filepath.Join(root, "nowhere/notify.sock")) }, unix.ENOENT, false},
		} {
			t.Run(test.name, func(t *testing.T) {
				addr := test.addr(t)
				test.agent.must(t, step{Op: "socket", Sock: "s", Type: test.kind})
				o := test.agent.do(t, step{Op: "connect", Sock: "s", Addr: addr})
				if o.Errno != test.errno {
					t.Fatalf("it failed with %v", o.Errno)
				}
				got := from(c.collect(t), test.agent)
				if !test.seen {
					if len(got) != 0 {
						t.Errorf("captured %s", describe(got[0]))
					}
					return
				}
				if len(got) != 1 {
					t.Fatalf("captured %d events", len(got))
				}
				e := got[0]
				if e.Call != events.CallConnect || e.Result.Errno != unix.ErrnoName(test.errno) || !e.Result.Failed() || string(e.Socket.Address) != strings.TrimRight(string(addr), "\x00") ||
					e.Payload != nil || e.Size != nil || e.Socket.Type != "dgram" || e.Sender.PID != test.agent.pid {
					t.Errorf("captured %s", describe(e))
				}
			})
		}
	})
}
