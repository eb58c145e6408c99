// SPDX-License-Identifier: Apache-2.0

package clients_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/vmtest"
)

// exampleImage is the image in the unit files.
const exampleImage = "registry.example.com/web:1"

// engine is docker or podman, with an image of that name in which nothing but
// this binary is: it plays the role "relayed".
type engine struct {
	name string
	env  []string
}

// start runs the command of the unit file, with more options and the steps of
// the container behind it.
func (e engine) start(t *testing.T, steps []string, options ...string) *relayRun {
	t.Helper()
	argv := unitCommand(t, e.name, map[string]string{"%t/web": privateDirectory(t)})
	if argv[len(argv)-1] != exampleImage {
		t.Fatalf("%q does not end in the image", argv)
	}
	argv = slices.Insert(argv, len(argv)-1, options...)
	r := startRelay(t, append(argv, steps...), e.env...)
	r.engine = e.name
	return r
}

// do runs a command of the engine beside a run of the relay.
func (e engine) do(t *testing.T, r *relayRun, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(await.Context(t), "nsenter", append([]string{"--mount", "--target", r.pid(), e.name}, args...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + base}, e.env...)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", e.name, args, err, output)
	}
}

// importImage makes the image.
func (e engine) importImage(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(await.Context(t), "unshare", "--mount", "--propagation", "private", "sh", "-c", likeAService, "sh",
		e.name, "import", "--change", `ENTRYPOINT ["/container"]`, "--change", "ENV "+roleEnv+"=relayed", "-", exampleImage)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + base}, e.env...)
	cmd.Stdin = imageFiles(t)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("importing an image into %s: %v\n%s", e.name, err, output)
	}
}

// imageFiles is a tar archive of a container's files.
func imageFiles(t *testing.T) io.Reader {
	t.Helper()
	program, err := os.ReadFile(filepath.Join(makeBundle(t), "rootfs", "container"))
	if err != nil {
		t.Fatal(err)
	}
	archive, err := vmtest.ProgramArchive("container", program)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(archive)
}

// startPodman makes podman work on any machine: without a network, without the
// controllers of cgroups, with runc, which asks for no memory lock limit.
func startPodman(t *testing.T) engine {
	t.Helper()
	dir := privateDirectory(t)
	for name, text := range map[string]string{
		"containers.conf": `
[containers]
netns = "none"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
pids_limit = 0
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "none"
`,
		"storage.conf": `
[storage]
driver = "vfs"
graphroot = "` + dir + `/graph"
runroot = "` + dir + `/run"
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	e := engine{"podman", []string{
		"CONTAINERS_CONF=" + filepath.Join(dir, "containers.conf"), "CONTAINERS_STORAGE_CONF=" + filepath.Join(dir, "storage.conf"),
	}}
	e.importImage(t)
	return e
}

// startDocker starts a daemon of its own, which ends with the test.
func startDocker(t *testing.T) engine {
	t.Helper()
	dir := privateDirectory(t)
	address := filepath.Join(dir, "notify.sock")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	socket := "unix://" + filepath.Join(dir, "docker.sock")
	// Not with t.Context, which ends before the cleanup can.
	daemon := exec.Command("unshare", "--mount", "--cgroup", "--propagation", "private", "sh", "-c", likeAService, "sh",
		"dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs",
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "--host", socket)
	daemon.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "NOTIFY_SOCKET=" + address}
	log := new(bytes.Buffer)
	daemon.Stdout, daemon.Stderr = log, log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = daemon.Wait()
		notify.Close()
	}()
	t.Cleanup(func() {
		_ = daemon.Process.Signal(unix.SIGTERM)
		<-ended
		if t.Failed() {
			t.Logf("dockerd:\n%s", log)
		}
	})
	buffer := make([]byte, 4096)
	for ready := false; !ready; {
		n, err := notify.Read(buffer)
		if err != nil {
			t.Fatalf("dockerd is not ready: %v", err)
		}
		ready = slices.Contains(strings.Split(string(buffer[:n]), "\n"), "READY=1")
	}
	e := engine{"docker", []string{"DOCKER_HOST=" + socket}}
	e.importImage(t)
	return e
}

func TestTheHostHearsEverythingAnEnginesContainerSays(t *testing.T) {
	needRuntimes(t)
	for name, start := range map[string]func(*testing.T) engine{"docker": startDocker, "podman": startPodman} {
		t.Run(name, func(t *testing.T) {
			e := start(t)
			t.Run("root", func(t *testing.T) {
				id := newContainerID(t)
				checkEverything(t, e.start(t, everything(id)), id)
			})
			t.Run("another user", func(t *testing.T) {
				id := newContainerID(t)
				o := checkEverything(t, e.start(t, everything(id), "--user", "1000"), id)
				if o.container.UID != 1000 {
					t.Errorf("the container ran as user %d, want 1000", o.container.UID)
				}
			})
			t.Run("never ready", func(t *testing.T) {
				o := e.start(t, []string{"STATUS=no way", stepBarrier, "exit=7"}).end(t)
				if o.status != 7 {
					t.Errorf("exit status is %d, want 7", o.status)
				}
				if diff := cmp.Diff([]string{"STATUS=no way"}, o.payloads()); diff != "" {
					t.Errorf("the host received (-want +got):\n%s", diff)
				}
			})
			t.Run("a process started from outside", func(t *testing.T) {
				r := e.start(t, []string{"READY=1", stepSigterm, "STOPPING=1", stepBarrier})
				r.await(t)
				e.do(t, r, "exec", "web", "/container", "STATUS=from outside", stepBarrier)
				r.terminate(t)
				want := []string{"READY=1", "STATUS=from outside", "STOPPING=1"}
				if diff := cmp.Diff(want, r.end(t).payloads()); diff != "" {
					t.Errorf("the host received (-want +got):\n%s", diff)
				}
			})
		})
	}
}
