// SPDX-License-Identifier: Apache-2.0

package clients_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/pkg/events"
	"github.com/sdtrace/sdtrace/pkg/inventory"
)

// The runtimes here have their state in another place than the default one, so that
// only their processes tell where.
func TestEventsCallAContainerByItsName(t *testing.T) {
	needRuntimes(t)
	for name, start := range map[string]func(*testing.T) engine{"docker": startDocker, "podman": startPodman} {
		t.Run(name, func(t *testing.T) {
			e := start(t)
			r := e.start(t, []string{"READY=1", stepSigterm, stepBarrier})
			r.await(t)
			id := "" // other tests have containers of this runtime, too
			withBackend(t, func(t *testing.T, backend string) {
				c := startCommand(t, "--backend", backend, "--socket", notifyInContainer, "-o", "json")
				// The name is looked up beside the stream: it is absent from the first event.
				for i := 0; ; i++ {
					status := fmt.Sprintf("STATUS=%s %d", r.pid(), i)
					e.do(t, r, "exec", "web", "/container", status)
					sender := c.await(t, status).Sender
					if sender.Container == nil || sender.Container.Runtime != name || len(sender.Container.ID) != 64 {
						t.Fatalf("the sender's container is %+v", sender.Container)
					}
					id = sender.Container.ID
					if sender.Container.Name != "" {
						if sender.Container.Name != "web" {
							t.Errorf("the container is called %q, want web", sender.Container.Name)
						}
						break
					}
				}
			})
			for named := false; !named; {
				for _, p := range clientsOf(t) {
					if p.Container != nil && p.Container.ID == id {
						if named = p.Container.Name != ""; named && p.Container.Name != "web" {
							t.Errorf("sdtrace sockets calls the container %q, want web", p.Container.Name)
						}
					}
				}
			}
			r.terminate(t)
			if o := r.end(t); o.status != 0 {
				t.Errorf("exit status is %d, want 0", o.status)
			}
		})
	}
}

// command is a running capture by sdtrace itself, as JSON.
type command struct{ lines *bufio.Scanner }

func startCommand(t *testing.T, args ...string) command {
	t.Helper()
	path, err := sdtrace()
	if err != nil {
		t.Fatal(err)
	}
	// Not with t.Context, which ends before the cleanup can.
	cmd := exec.Command(filepath.Join(path, "sdtrace"), append(args, "--duration", "3m")...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(stderr)
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGINT)
		// Others send to sockets of that name, too, and sdtrace writes it all.
		go func() { _, _ = io.Copy(io.Discard, stdout) }()
		rest, _ := io.ReadAll(said)
		if err := cmd.Wait(); err != nil {
			t.Errorf("sdtrace %q: %v\n%s", args, err, rest)
		}
	})
	for text := ""; !strings.Contains(text, "sdtrace: capturing"); {
		line, err := said.ReadString('\n')
		if text += line; err != nil {
			t.Fatalf("sdtrace %q does not capture: %v\n%s", args, err, text)
		}
	}
	return command{bufio.NewScanner(stdout)}
}

// await returns the event with a payload.
func (c command) await(t *testing.T, payload string) *events.Event {
	t.Helper()
	for c.lines.Scan() {
		line, err := events.Decode(c.lines.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if e := line.Event; e != nil && string(e.Payload) == payload {
			return e
		}
	}
	t.Fatalf("the capture ended before %q: %v", payload, c.lines.Err())
	return nil
}

type clientLine struct {
	inventory.Client
	Type         string `json:"type"`
	NotifySocket string `json:"notify_socket"`
}

// clientsOf are those that sdtrace sockets lists.
func clientsOf(t *testing.T) []clientLine {
	t.Helper()
	path, err := sdtrace()
	if err != nil {
		t.Fatal(err)
	}
	output, err := exec.CommandContext(await.Context(t), filepath.Join(path, "sdtrace"), "sockets", "-o", "json").Output()
	// Its status is 1 where some process may not be looked at.
	if exit := new(exec.ExitError); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatal(err)
	}
	var all []clientLine
	for line := range strings.Lines(string(output)) {
		var c clientLine
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatal(err)
		}
		if c.Type == "client" {
			all = append(all, c)
		}
	}
	return all
}
