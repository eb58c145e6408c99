// SPDX-License-Identifier: Apache-2.0

package clients_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/vmtest"
)

// needRuntimes skips what takes a container runtime and a build of sdtrace.
func needRuntimes(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not declared: needs root")
	}
	vmtest.Natively(t, "the relay and runtimes meet, without programs in the kernel")
}

// sdtrace is the directory of a fresh build of the command.
var sdtrace = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(base, "bin")
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "sdtrace"), "../../cmd/sdtrace")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building sdtrace: %w\n%s", err, output)
	}
	return dir, nil
})

// likeAService gives a command what a service manager would: it is told in
// WATCHDOG_PID that the watchdog is meant for it. It gets a /run of its own, where
// runtimes keep their state, and cgroups of version 2 alone, as most of them want.
const likeAService = `mount -t tmpfs tmpfs /run &&
	{ [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup; } &&
	WATCHDOG_PID=$$ exec "$@"`

var directories atomic.Int64

// privateDirectory makes one that is closed to other users, as the unit files ask
// for. Its name is short enough for sun_path, unlike that of t.TempDir.
func privateDirectory(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(base, strconv.FormatInt(directories.Add(1), 10))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// relayRun is a command with a relay in it, behind which a container plays the
// role "relayed", and the host's notify socket.
type relayRun struct {
	host   *listener
	cmd    *exec.Cmd
	stdout *bufio.Scanner
	stderr bytes.Buffer
	last   string // line of stdout
	engine string // "" for a runtime alone
}

// outcome is what there is to know when it has ended.
type outcome struct {
	status    int
	container relayed
	arrived   []datagram
	stderr    string
}

func startRelay(t *testing.T, argv []string, env ...string) *relayRun {
	t.Helper()
	path, err := sdtrace()
	if err != nil {
		t.Fatal(err)
	}
	dir := privateDirectory(t)
	r := &relayRun{host: listen(t, filepath.Join(dir, "notify.sock"))}
	unshare := append([]string{"--mount", "--propagation", "private", "sh", "-c", likeAService, "sh"}, argv...)
	r.cmd = exec.CommandContext(await.Context(t), "unshare", unshare...)
	r.cmd.Env = append([]string{
		"PATH=" + path + ":" + os.Getenv("PATH"), "HOME=" + dir,
		"NOTIFY_SOCKET=" + r.host.address, "WATCHDOG_USEC=30000000",
	}, env...)
	r.cmd.Stderr = &r.stderr
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.stdout = bufio.NewScanner(stdout)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.cmd.ProcessState == nil {
			_ = r.cmd.Process.Kill()
			_ = r.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("stderr of %q:\n%s", argv, r.stderr.String())
		}
	})
	return r
}

// pid is the relay's, in decimal.
func (r *relayRun) pid() string { return strconv.Itoa(r.cmd.Process.Pid) }

// await returns when the container waits for SIGTERM.
func (r *relayRun) await(t *testing.T) {
	t.Helper()
	for r.stdout.Scan() {
		if r.last = r.stdout.Text(); r.last == sigtermAwaited {
			return
		}
	}
	t.Fatalf("the container ended before it waited for SIGTERM: %v, %v", r.stdout.Err(), r.cmd.Wait())
}

func (r *relayRun) terminate(t *testing.T) {
	t.Helper()
	// podman before 4.4.2 starts the container first, and is killed by what it should pass on.
	if r.engine != "" {
		await.Until(t, r.engine+" passes on signals", r.passesOn)
	}
	if err := r.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// passesOn reports whether the relay's child catches SIGTSTP, which Go's runtime does not by itself:
// an engine does when it catches all signals to pass them on.
func (r *relayRun) passesOn() (caught bool) {
	pids, err := proc.PIDs("/")
	if err != nil {
		return false
	}
	for _, pid := range pids {
		p, err := proc.Open(pid)
		if err != nil {
			continue
		}
		if status, err := p.Status(); err == nil && status.PPID == r.cmd.Process.Pid {
			caught = caught || status.Caught&(1<<(unix.SIGTSTP-1)) != 0
		}
		p.Close()
	}
	return caught
}

// end waits for the command's.
func (r *relayRun) end(t *testing.T) outcome {
	t.Helper()
	for r.stdout.Scan() {
		r.last = r.stdout.Text()
	}
	err := r.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	o := outcome{status: r.cmd.ProcessState.ExitCode(), stderr: r.stderr.String()}
	if o.arrived, err = r.host.finish(); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(r.last), &o.container); err != nil {
		t.Fatalf("decoding what the container says, %q: %v\n%s", r.last, err, o.stderr)
	}
	return o
}

// payloads are what arrived, without barriers.
func (o outcome) payloads() []string {
	var all []string
	for _, d := range o.arrived {
		if d.Payload != "BARRIER=1" {
			all = append(all, d.Payload)
		}
	}
	return all
}

// everything is what a container can say under the default policy. The last
// barrier is there so that the container lives until it was heard.
func everything(id string) []string {
	return []string{
		"STATUS=starting " + id,
		"EXTEND_TIMEOUT_USEC=5000000",
		"READY=1\nSTATUS=up",
		stepBarrier,
		"WATCHDOG=1",
		"RELOADING=1\nMONOTONIC_USEC=$CLOCK",
		"READY=1",
		"MAINPID=$PID",
		stepBarrier,
		stepSigterm,
		"STOPPING=1",
		stepBarrier,
	}
}

// checkEverything takes a run of a container that says everything and holds
// what the host gets against what the container says of itself.
func checkEverything(t *testing.T, r *relayRun, id string) outcome {
	t.Helper()
	r.await(t)
	mainPID := findContainer(t, id)
	r.terminate(t)
	o := r.end(t)
	if o.status != 0 {
		t.Errorf("exit status is %d, want 0", o.status)
	}
	wantEnvironment := []string{"NOTIFY_SOCKET=" + notifyInContainer, "WATCHDOG_USEC=30000000", "WATCHDOG_PID=1"}
	if diff := cmp.Diff(wantEnvironment, o.container.Environment); diff != "" {
		t.Errorf("the container's environment (-want +got):\n%s", diff)
	}
	if o.container.Writable {
		t.Error("the container can write to the socket's directory")
	}
	if o.container.PID != 1 || len(o.container.Clocks) != 1 {
		t.Fatalf("the container says %+v, want pid 1 and one reading of the clock", o.container)
	}

	main := fmt.Sprintf("MAINPID=%d", mainPID)
	if inode := o.container.PIDFDInode; inode != 0 {
		main += fmt.Sprintf("\nMAINPIDFDID=%d", inode)
	}
	relay, container := uint32(r.cmd.Process.Pid), uint32(mainPID)
	want := []datagram{
		{Payload: "STATUS=starting " + id, PID: relay},
		{Payload: "EXTEND_TIMEOUT_USEC=5000000", PID: relay},
		{Payload: "READY=1\nSTATUS=up", PID: relay},
		{Payload: "BARRIER=1", PID: relay, FDs: []string{"pipe"}},
		{Payload: "WATCHDOG=1", PID: relay},
		{Payload: fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", o.container.Clocks[0]), PID: relay},
		{Payload: "READY=1", PID: relay},
		{Payload: main, PID: relay},
		// The host listens to the main process now.
		{Payload: "BARRIER=1", PID: container, FDs: []string{"pipe"}},
		{Payload: "STOPPING=1", PID: container},
		{Payload: "BARRIER=1", PID: container, FDs: []string{"pipe"}},
	}
	if diff := cmp.Diff(want, o.arrived); diff != "" {
		t.Errorf("the host received (-want +got):\n%s", diff)
	}
	return o
}

// findContainer finds the process that plays the role "relayed" with id in one
// of its steps.
func findContainer(t *testing.T, id string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err != nil {
			continue // It has ended meanwhile.
		}
		args := strings.Split(string(line), "\x00")
		if args[0] == "/container" && slices.ContainsFunc(args, func(arg string) bool { return strings.Contains(arg, id) }) {
			found = append(found, pid)
		}
	}
	if len(found) != 1 {
		t.Fatalf("processes %v run the container %s, want one", found, id)
	}
	return found[0]
}
