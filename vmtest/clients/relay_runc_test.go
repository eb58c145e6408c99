// SPDX-License-Identifier: Apache-2.0

package clients_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sdtrace/sdtrace/internal/await"
)

// relayBundle is a bundle whose container plays the role "relayed".
func relayBundle(t *testing.T, steps []string, change ...func(*specs.Spec)) string {
	t.Helper()
	bundle := makeBundle(t)
	// A container in a user namespace has to get through to its root, and cannot
	// make directories there.
	if err := os.Chmod(filepath.Dir(bundle), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"dev", "proc", "run"} {
		if err := os.Mkdir(filepath.Join(bundle, "rootfs", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var spec specs.Spec
	if err := json.Unmarshal(containerConfig, &spec); err != nil {
		t.Fatal(err)
	}
	spec.Process.Args = append([]string{"/container"}, steps...)
	spec.Process.Env = []string{roleEnv + "=relayed"}
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}})
	for _, f := range change {
		f(&spec)
	}
	config, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o644); err != nil {
		t.Fatal(err)
	}
	return bundle
}

// startBundle runs a bundle by the command of the unit file for runc. The
// runtime is runc or another that takes the same.
func startBundle(t *testing.T, runtime, id, bundle string) *relayRun {
	t.Helper()
	argv := unitCommand(t, "runc", map[string]string{"%t/web": privateDirectory(t), "/srv/web": bundle, "runc run": runtime + " run"})
	argv[len(argv)-1] = id
	return startRelay(t, argv)
}

func asUser(spec *specs.Spec) {
	spec.Process.User = specs.User{UID: 1000, GID: 1000}
}

func inUserNamespace(spec *specs.Spec) {
	mapping := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = mapping, mapping
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
}

func TestTheHostHearsEverythingABundleSays(t *testing.T) {
	needRuntimes(t)
	for _, test := range []struct {
		name   string
		change []func(*specs.Spec)
		uid    int
	}{
		{name: "root"},
		{name: "another user", change: []func(*specs.Spec){asUser}, uid: 1000},
		{name: "user namespace", change: []func(*specs.Spec){inUserNamespace}},
		{name: "another user in a user namespace", change: []func(*specs.Spec){inUserNamespace, asUser}, uid: 1000},
	} {
		for _, runtime := range []string{"runc", "crun"} {
			t.Run(runtime+"/"+test.name, func(t *testing.T) {
				id := newContainerID(t)
				r := startBundle(t, runtime, id, relayBundle(t, everything(id), test.change...))
				if o := checkEverything(t, r, id); o.container.UID != test.uid {
					t.Errorf("the container ran as user %d, want %d", o.container.UID, test.uid)
				}
			})
		}
	}
}

// What runc forwards by itself is less: that is what the relay is for.
func TestTheHostHearsMoreThroughTheRelayThanRuncForwardsByItself(t *testing.T) {
	needRuntimes(t)
	steps := []string{"STATUS=starting", "READY=1\nSTATUS=up", "WATCHDOG=1", "STOPPING=1"}
	id := newContainerID(t)
	through := startBundle(t, "runc", id, relayBundle(t, append(steps, stepBarrier))).end(t)
	if diff := cmp.Diff(steps, through.payloads()); diff != "" {
		t.Errorf("through the relay (-want +got):\n%s", diff)
	}

	id = newContainerID(t)
	direct := startRelay(t, []string{"runc", "run", "--bundle", relayBundle(t, steps), id}).end(t)
	arrived := strings.Join(direct.payloads(), "\n")
	for _, only := range []string{"STATUS=", "WATCHDOG=1", "STOPPING=1"} {
		if strings.Contains(arrived, only) {
			t.Errorf("runc forwarded %s by itself: %q", only, arrived)
		}
	}
}

func TestABundlesConfigIsTheSameForEveryStart(t *testing.T) {
	needRuntimes(t)
	bundle := relayBundle(t, []string{"READY=1", stepBarrier})
	var configs []string
	directory := filepath.Join(privateDirectory(t), "notify")
	for range 2 {
		id := newContainerID(t)
		o := startRelay(t, []string{
			"sdtrace", "relay", "--directory", directory, "--bundle", bundle, "--", "runc", "run", "--bundle", bundle, id,
		}).end(t)
		if diff := cmp.Diff([]string{"READY=1"}, o.payloads()); diff != "" {
			t.Errorf("the host received (-want +got):\n%s", diff)
		}
		config, err := os.ReadFile(filepath.Join(bundle, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		configs = append(configs, string(config))
	}
	if diff := cmp.Diff(configs[0], configs[1]); diff != "" {
		t.Errorf("config.json (-first start +second start):\n%s", diff)
	}
}

func TestARelayEndsWithAContainerThatWasNeverReady(t *testing.T) {
	needRuntimes(t)
	for _, test := range []struct {
		step   string
		status int
	}{{"exit=7", 7}, {"exit=0", 1}} {
		t.Run(test.step, func(t *testing.T) {
			id := newContainerID(t)
			o := startBundle(t, "runc", id, relayBundle(t, []string{"STATUS=no way", stepBarrier, test.step})).end(t)
			if o.status != test.status {
				t.Errorf("exit status is %d, want %d", o.status, test.status)
			}
			if diff := cmp.Diff([]string{"STATUS=no way"}, o.payloads()); diff != "" {
				t.Errorf("the host received (-want +got):\n%s", diff)
			}
			if !strings.Contains(o.stderr, "READY=1") {
				t.Errorf("stderr is %q, which says nothing of READY=1", o.stderr)
			}
		})
	}
}

func TestSigtermReachesAContainerThatIsNotReadyYet(t *testing.T) {
	needRuntimes(t)
	id := newContainerID(t)
	r := startBundle(t, "runc", id, relayBundle(t, []string{stepSigterm, "STATUS=got it", stepBarrier, "exit=9"}))
	r.await(t)
	r.terminate(t)
	o := r.end(t)
	if o.status != 9 {
		t.Errorf("exit status is %d, want 9", o.status)
	}
	if diff := cmp.Diff([]string{"STATUS=got it"}, o.payloads()); diff != "" {
		t.Errorf("the host received (-want +got):\n%s", diff)
	}
}

// runc exec starts a process in the container from outside.
func TestAccessTellsTheContainersProcessesApart(t *testing.T) {
	needRuntimes(t)
	for _, test := range []struct {
		access string
		want   []string
	}{
		{"main", []string{"READY=1", "STOPPING=1"}},
		{"exec", []string{"READY=1", "STATUS=from outside", "STOPPING=1"}},
		{"all", []string{"READY=1", "STATUS=from outside", "STOPPING=1"}},
	} {
		t.Run(test.access, func(t *testing.T) {
			id := newContainerID(t)
			bundle := relayBundle(t, []string{"READY=1", stepSigterm, "STOPPING=1", stepBarrier})
			r := startRelay(t, []string{
				"sdtrace", "relay", "--access", test.access, "--bundle", bundle, "--",
				"runc", "run", "--bundle", bundle, id,
			})
			r.await(t)
			outside := exec.CommandContext(await.Context(t), "nsenter", "--mount", "--target", r.pid(),
				"runc", "exec", id, "/container", "STATUS=from outside", stepBarrier)
			if output, err := outside.CombinedOutput(); err != nil {
				t.Fatalf("runc exec: %v\n%s", err, output)
			}
			r.terminate(t)
			if diff := cmp.Diff(test.want, r.end(t).payloads()); diff != "" {
				t.Errorf("the host received (-want +got):\n%s", diff)
			}
		})
	}
}
