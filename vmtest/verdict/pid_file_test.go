// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/pkg/verdict"
	"github.com/sdtrace/sdtrace/vmtest/pid1"
)

// A service that hands over during a reload and writes its PID file too late loses its new main process when
// ExecReload= ends.
func TestAPIDFileThatNamesAnotherTakesTheMainProcessBack(t *testing.T) {
	eachManager(t, func(t *testing.T, m *pid1.Systemd) {
		u := define(t, m, "pidfile", "Type=notify", "NotifyAccess=all", "PIDFile=/run/named.pid",
			"ExecReload=%A reload", "ExecStart=%A main")
		withChild(running)(t, u)
		main, child := u.agent(t, "main"), u.agent(t, "child")
		if err := os.WriteFile(m.Inside("/run/named.pid"), fmt.Appendln(nil, main.PID), 0o644); err != nil {
			t.Fatal(err)
		}
		u.systemctl(t, "reload", "--no-block")
		reload := u.agent(t, "reload")
		u.await(t, "reload")

		named := uint32(main.host)
		state := u.state(t)
		state.PIDFileNames = &named
		handOver := order{Send: u.fill(t, []byte("MAINPID={child}"))}
		verdicts, _ := verdict.Judge(u.datagram(t, main, &handOver), verdict.Manager{Version: m.Major, PID: uint32(m.PID())}, state)
		if len(verdicts) != 1 || verdicts[0].Outcome != verdict.Heeded || verdicts[0].Rule != "D21p" {
			t.Errorf("verdicts %+v", verdicts)
		}
		said := message{handOver.Send, main.host, proc.BootTime(), verdicts}
		main.do(t, handOver)
		main.do(t, order{Barrier: true})
		mainIs := func(pid int) bool { now := u.state(t).MainPID; return now != nil && int(*now) == pid }
		if !mainIs(child.host) {
			t.Error("MAINPID= is not heeded")
		}
		reload.conn.Close()
		await.Until(t, "the main process is the one that the file names", func() bool { return mainIs(main.host) })
		for _, other := range seenLive.compare(t, m, said) {
			t.Error(other)
		}
	})
}
