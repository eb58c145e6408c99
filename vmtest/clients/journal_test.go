// SPDX-License-Identifier: Apache-2.0

package clients_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/tracer"
	"github.com/sdtrace/sdtrace/vmtest"
)

func TestJournalTrafficIsNeverCaptured(t *testing.T) {
	vmtest.OnlyOn(t, "the programs tell it by its text, the same ones on each", "sid-amd64")
	withBackend(t, func(t *testing.T, backend string) {
		c := open(t, backend, tracer.Filter{})

		cmd := exec.CommandContext(await.Context(t), roleBinary(t, "journal"))
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), roleEnv + "=journal"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			t.Fatalf("running the journal's clients: %v\n%s", err, stderr.String())
		}
		var report besideJournal
		if err := json.Unmarshal(stdout.Bytes(), &report); err != nil {
			t.Fatalf("decoding %q: %v", stdout.String(), err)
		}
		for _, client := range journalClients {
			if report.Arrived[client.name] == 0 {
				t.Errorf("%s sent nothing to the journal", client.name)
			}
		}

		var got []string
		for _, e := range c.drain(t) {
			// Anything else on this machine may send notifications meanwhile.
			if e.Sender.MntNS == report.MntNS {
				got = append(got, string(e.Socket.Address)+": "+string(e.Payload))
			}
		}
		if diff := cmp.Diff([]string{"/run/systemd/notify: " + journalSentinel}, got); diff != "" {
			t.Errorf("captured (-want +got):\n%s", diff)
		}
	})
}
