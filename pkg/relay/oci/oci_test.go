// SPDX-License-Identifier: Apache-2.0

package oci

import (
	_ "embed"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// runcSpec is what "runc spec" of runc 1.1.5 writes.
//
//go:embed runc-spec.json
var runcSpec []byte

func readRuncSpec(t *testing.T) *specs.Spec {
	t.Helper()
	var spec specs.Spec
	if err := json.Unmarshal(runcSpec, &spec); err != nil {
		t.Fatal(err)
	}
	return &spec
}

// relayMount is the mount that SetupSpec adds.
func relayMount(directory, destination string) specs.Mount {
	return specs.Mount{
		Destination: destination, Type: "bind", Source: directory,
		Options: []string{"bind", "rprivate", "ro", "nosuid", "nodev", "noexec"},
	}
}

func TestSetupSpecAddsOneMountAndTheEnvironmentToASpecOfRunc(t *testing.T) {
	spec, want := readRuncSpec(t), readRuncSpec(t)
	if err := SetupSpec(spec, SpecOptions{Directory: "/run/web", WatchdogUSec: "30000000"}); err != nil {
		t.Fatal(err)
	}
	want.Mounts = append(want.Mounts, relayMount("/run/web", "/run/notify"))
	want.Process.Env = append(want.Process.Env,
		"NOTIFY_SOCKET=/run/notify/notify.sock", "WATCHDOG_USEC=30000000", "WATCHDOG_PID=1")
	if diff := cmp.Diff(want, spec); diff != "" {
		t.Errorf("the spec (-want +got):\n%s", diff)
	}
}

func TestSetupSpecLosesNothingOfAConfigFile(t *testing.T) {
	spec := readRuncSpec(t)
	if err := SetupSpec(spec, SpecOptions{Directory: "/run/web"}); err != nil {
		t.Fatal(err)
	}
	written, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	var got, want map[string]any
	if err := json.Unmarshal(written, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(runcSpec, &want); err != nil {
		t.Fatal(err)
	}
	want["mounts"] = append(want["mounts"].([]any), map[string]any{
		"destination": "/run/notify", "type": "bind", "source": "/run/web",
		"options": []any{"bind", "rprivate", "ro", "nosuid", "nodev", "noexec"},
	})
	process := want["process"].(map[string]any)
	process["env"] = append(process["env"].([]any), "NOTIFY_SOCKET=/run/notify/notify.sock")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the config (-want +got):\n%s", diff)
	}
}

func TestSetupSpecAgainChangesNothing(t *testing.T) {
	opts := SpecOptions{Directory: "/run/web/", Destination: "/run/host/", WatchdogUSec: "1000000"}
	spec := readRuncSpec(t)
	if err := SetupSpec(spec, opts); err != nil {
		t.Fatal(err)
	}
	once, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := SetupSpec(spec, opts); err != nil {
		t.Fatal(err)
	}
	twice, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(once), string(twice)); diff != "" {
		t.Errorf("the second time (-once +twice):\n%s", diff)
	}
}

func TestSetupSpecReplacesTheHostsEnvironment(t *testing.T) {
	for _, test := range []struct {
		name      string
		env, want []string
		opts      SpecOptions
	}{
		{
			name: "without a watchdog the host's is removed",
			env:  []string{"WATCHDOG_PID=4711", "A=1", "NOTIFY_SOCKET=/run/systemd/notify", "WATCHDOG_USEC=1", "B=2"},
			want: []string{"A=1", "B=2", "NOTIFY_SOCKET=/run/notify/notify.sock"},
		},
		{
			name: "every former value is removed",
			env:  []string{"NOTIFY_SOCKET=a", "NOTIFY_SOCKET=b", "NOTIFY_SOCKET", "WATCHDOG_USEC=", "WATCHDOG_USEC=2"},
			opts: SpecOptions{Destination: "/n", WatchdogUSec: "1500"},
			want: []string{"NOTIFY_SOCKET=/n/notify.sock", "WATCHDOG_USEC=1500", "WATCHDOG_PID=1"},
		},
		{
			name: "names that only begin alike stay",
			env:  []string{"NOTIFY_SOCKET_DIR=x", "WATCHDOG=y", "X_NOTIFY_SOCKET=z"},
			want: []string{"NOTIFY_SOCKET_DIR=x", "WATCHDOG=y", "X_NOTIFY_SOCKET=z", "NOTIFY_SOCKET=/run/notify/notify.sock"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec := readRuncSpec(t)
			spec.Process.Env = test.env
			before := slices.Clone(test.env)
			test.opts.Directory = "/run/web"
			if err := SetupSpec(spec, test.opts); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, spec.Process.Env); diff != "" {
				t.Errorf("environment (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, test.env); diff != "" {
				t.Errorf("the slice it was given (-before +after):\n%s", diff)
			}
		})
	}
}

func TestSetupSpecNamesTheWatchdogsProcessOnlyWhereItKnowsIt(t *testing.T) {
	const pid = "WATCHDOG_PID=1"
	for _, test := range []struct {
		name  string
		linux *specs.Linux
		want  bool
	}{
		{"a pid namespace of its own", &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}}}, true},
		{"another container's", &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace, Path: "/proc/7/ns/pid"}}}, false},
		{"the host's", &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}}}, false},
		{"no namespaces at all", nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec := &specs.Spec{Process: &specs.Process{Env: []string{pid}}, Linux: test.linux}
			if err := SetupSpec(spec, SpecOptions{Directory: "/run/web", WatchdogUSec: "1000000"}); err != nil {
				t.Fatal(err)
			}
			if got := slices.Contains(spec.Process.Env, pid); got != test.want {
				t.Errorf("environment is %q, WATCHDOG_PID in it: want %v", spec.Process.Env, test.want)
			}
		})
	}
}

func TestSetupSpecMountsAfterEverythingThatWouldHideIt(t *testing.T) {
	root := specs.Mount{Destination: "/", Type: "tmpfs", Source: "tmpfs"}
	run := specs.Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs"}
	beside := specs.Mount{Destination: "/run/notify2", Type: "bind", Source: "/srv"}
	ours := relayMount("/run/web", "/run/notify")
	for _, test := range []struct {
		name         string
		mounts, want []specs.Mount
	}{
		{"no mount", nil, []specs.Mount{ours}},
		{"/ and /run", []specs.Mount{root, run}, []specs.Mount{root, run, ours}},
		{"a mount added after an earlier one of ours", []specs.Mount{ours, run}, []specs.Mount{run, ours}},
		{
			"another directory at the same place",
			[]specs.Mount{relayMount("/run/old", "/run/notify"), run, beside},
			[]specs.Mount{run, beside, ours},
		},
		{"the same place written otherwise", []specs.Mount{relayMount("/a", "/run//notify/"), relayMount("/b", "run/notify")}, []specs.Mount{ours}},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec := readRuncSpec(t)
			spec.Mounts = test.mounts
			before := slices.Clone(test.mounts)
			if err := SetupSpec(spec, SpecOptions{Directory: "/run/web"}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, spec.Mounts); diff != "" {
				t.Errorf("mounts (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, test.mounts); diff != "" {
				t.Errorf("the slice it was given (-before +after):\n%s", diff)
			}
		})
	}
}

func TestSetupSpecRefusesWhatCannotWorkAndLeavesTheSpecAlone(t *testing.T) {
	below := func(t *testing.T) *specs.Spec {
		spec := readRuncSpec(t)
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/run/notify/x", Type: "tmpfs", Source: "tmpfs"})
		return spec
	}
	for _, test := range []struct {
		name string
		spec func(*testing.T) *specs.Spec
		opts SpecOptions
		want string
	}{
		{"no spec", func(*testing.T) *specs.Spec { return nil }, SpecOptions{Directory: "/d"}, "it has no process"},
		{"no process", func(*testing.T) *specs.Spec { return &specs.Spec{} }, SpecOptions{Directory: "/d"}, "it has no process"},
		{"no directory", readRuncSpec, SpecOptions{}, `directory "" is not an absolute path`},
		{"relative directory", readRuncSpec, SpecOptions{Directory: "run/web"}, `directory "run/web" is not an absolute path`},
		{"relative destination", readRuncSpec, SpecOptions{Directory: "/d", Destination: "run"}, `destination "run" is not an absolute path`},
		{"the root", readRuncSpec, SpecOptions{Directory: "/d", Destination: "/run/.."}, "destination / would replace its root"},
		{"a mount below", below, SpecOptions{Directory: "/d"}, "mount at /run/notify/x lies below /run/notify"},
		{
			"too long for a socket address", readRuncSpec,
			SpecOptions{Directory: "/d", Destination: "/" + strings.Repeat("x", 95)},
			"/" + strings.Repeat("x", 95) + "/notify.sock has 108 bytes, a socket address holds 107",
		},
		{"negative watchdog", readRuncSpec, SpecOptions{Directory: "/d", WatchdogUSec: "-1"}, `watchdog "-1" is not a number of microseconds`},
		{"no watchdog that could be kept", readRuncSpec, SpecOptions{Directory: "/d", WatchdogUSec: "0"}, `watchdog "0" is not a number of microseconds`},
		{"watchdog with a unit", readRuncSpec, SpecOptions{Directory: "/d", WatchdogUSec: "30s"}, `watchdog "30s" is not a number of microseconds`},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec := test.spec(t)
			err := SetupSpec(spec, test.opts)
			if want := "setting up an OCI container: " + test.want; err == nil || err.Error() != want {
				t.Errorf("error is %v, want %s", err, want)
			}
			if diff := cmp.Diff(test.spec(t), spec); diff != "" {
				t.Errorf("the spec (-before +after):\n%s", diff)
			}
		})
	}
}

func TestSetupSpecTakesTheLongestDestinationThatASenderCanAddress(t *testing.T) {
	spec := readRuncSpec(t)
	if err := SetupSpec(spec, SpecOptions{Directory: "/d", Destination: "/" + strings.Repeat("x", 94)}); err != nil {
		t.Error(err)
	}
}

func TestSetupBundleKeepsFieldsThatItDoesNotKnow(t *testing.T) {
	bundle := t.TempDir()
	file := filepath.Join(bundle, "config.json")
	const config = `{"process":{"env":[],"later":1},"mounts":[{"destination":"/a","type":"bind","later":{"b":[2]}},{"destination":"/run/notify"},` +
		`{"destination":"/c","later":3}],"later":true}`
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := SetupBundle(bundle, SpecOptions{Directory: "/host"}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Process struct{ Later int }
		Mounts  []struct {
			Destination string
			Later       any
		}
		Later bool
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got.Process.Later != 1 || !got.Later || len(got.Mounts) != 3 || got.Mounts[0].Later == nil || got.Mounts[1].Later == nil ||
		got.Mounts[2].Destination != DefaultDestination {
		t.Errorf("it has become %s", text)
	}
}
