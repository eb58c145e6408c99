// SPDX-License-Identifier: Apache-2.0

package tracer_test

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/vmtest"
)

// A user whose processes have more names in NOTIFY_SOCKET than there is room for pushes out his own.
func TestNobodyPushesOutTheNotifySocketsOfOthers(t *testing.T) {
	vmtest.Natively(t, "names, of which no kernel has less room")
	eachBackend(t, func(t *testing.T, backend string) {
		r := listenPath(t, "honest/name")
		honest := startAgent(t, agentSpec{comm: "sdt-honest", env: []string{"NOTIFY_SOCKET=" + r.path()}})
		honest.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
		c := openCapture(t, tracer.Options{Backend: backend})
		const nobody, tooMany = 65534, 300
		// One of his own is really there, and older than all others.
		his := listenPath(t, "his/name")
		flooder := startAgent(t, agentSpec{comm: "sdt-flooder", uid: nobody, gid: nobody, env: []string{"NOTIFY_SOCKET=" + his.path()}})
		flooder.must(t, step{Op: "socket", Sock: "s", Type: unix.SOCK_DGRAM})
		say := func(who *agent, to *receiver) int {
			who.must(t, step{Op: "sendto", Sock: "s", Addr: to.addr, Parts: parts("FOO=honest")})
			return len(from(c.buffered(t), who))
		}
		await.Until(t, "its name is known", func() bool { return say(flooder, his) == 1 })
		for i := range tooMany {
			cmd := exec.Command("sleep", "infinity")
			cmd.Env = []string{fmt.Sprintf("NOTIFY_SOCKET=/nowhere/%s/%d", backend, i), "PATH=" + os.Getenv("PATH")}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			})
		}
		await.Until(t, "it is said that names are given up", func() bool {
			c.buffered(t)
			return c.names > 0
		})
		if n := say(honest, r); n != 1 {
			t.Errorf("%d of one message were captured", n)
		}
		if n := say(flooder, his); n != 1 {
			t.Errorf("%d of one message to a socket that is really there were captured", n)
		}
	})
}
