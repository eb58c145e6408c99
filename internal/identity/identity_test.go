// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	idA = "3f2a9c41d7e05b8863f1c2aa90be7d64158e03f7c9ab26d4e1705f38b6c2d9a0"
	idB = "81c0774e5d1f2b3a96e8d0c4b5a7f6190213e4d5c6b7a8990f1e2d3c4b5a6978"
	pod = "0d5a1f2e-7c3b-4e69-9a80-61f4b2c7d8e3"
	// podEscaped is how the kubelet's systemd driver writes pod.
	podEscaped = "0d5a1f2e_7c3b_4e69_9a80_61f4b2c7d8e3"
	staticPod  = "b2f9a07c31d84e56a9b0c7d2e3f41586"
)

// flat is what Parse finds, as one struct that can be compared.
type flat struct {
	Unit, UserUnit, Slice        string
	Runtime, ContainerID, PodUID string
}

func parseFlat(cgroup string) flat {
	id := Parse(cgroup)
	f := flat{Unit: id.Unit, UserUnit: id.UserUnit, Slice: id.Slice}
	if c := id.Container; c != nil {
		f.Runtime, f.ContainerID, f.PodUID = c.Runtime, c.ID, c.PodUID
	}
	return f
}

func TestParseFindsUnitsBySystemdsRules(t *testing.T) {
	for _, tt := range []struct {
		name, cgroup string
		want         flat
	}{
		{"nothing", "", flat{}},
		{"the root", "/", flat{}},
		{"a service", "/system.slice/nginx.service", flat{Unit: "nginx.service", Slice: "system.slice"}},
		{"an instance", "/system.slice/system-getty.slice/getty@tty1.service", flat{Unit: "getty@tty1.service", Slice: "system-getty.slice"}},
		{"the service manager", "/init.scope", flat{Unit: "init.scope"}},
		{"no slice", "/foo.service", flat{Unit: "foo.service"}},
		{"a process right in a slice", "/system.slice", flat{Slice: "system.slice"}},
		{"a socket, which has processes while it starts", "/system.slice/cups.socket", flat{Unit: "cups.socket", Slice: "system.slice"}},
		{"a mount with an escaped dash", `/system.slice/srv-my\x2ddata.mount`, flat{Unit: `srv-my\x2ddata.mount`, Slice: "system.slice"}},
		{"a swap", "/system.slice/swapfile.swap", flat{Unit: "swapfile.swap", Slice: "system.slice"}},
		{"a delegated service's own cgroups", "/system.slice/foo.service/workers.slice/a.service", flat{Unit: "foo.service", Slice: "system.slice"}},
		{"a name like a controller's file", "/_cpu.service", flat{Unit: "cpu.service"}},
		{"an escaped name with an underscore of its own", "/system.slice/__x.service", flat{Unit: "_x.service", Slice: "system.slice"}},
		{"an escaped slice", "/_memory.slice/a.service", flat{Unit: "a.service", Slice: "memory.slice"}},
		{"a login session", "/user.slice/user-1000.slice/session-4.scope", flat{Unit: "session-4.scope", Slice: "user-1000.slice"}},
		{
			"a user's unit", "/user.slice/user-1000.slice/user@1000.service/app.slice/app-foot.scope",
			flat{Unit: "user@1000.service", UserUnit: "app-foot.scope", Slice: "user-1000.slice"},
		},
		{
			"a user's unit in no slice", "/user.slice/user-1000.slice/user@1000.service/dbus.service",
			flat{Unit: "user@1000.service", UserUnit: "dbus.service", Slice: "user-1000.slice"},
		},
		{
			"a user's service manager", "/user.slice/user-1000.slice/user@1000.service/init.scope",
			flat{Unit: "user@1000.service", UserUnit: "init.scope", Slice: "user-1000.slice"},
		},
		{
			"the unit of no other service is a user's", "/system.slice/user@tmp.service/a.service",
			flat{Unit: "user@tmp.service", Slice: "system.slice"},
		},
		{"a cgroup that is none of systemd's", "/build/worker-3", flat{}},
		{"a unit below one that is none of systemd's", "/build/x.service", flat{}},
		{"a template, which has no cgroup", "/system.slice/foo@.service", flat{Slice: "system.slice"}},
		{"no name before the suffix", "/.service", flat{}},
		{"no name before the slice's suffix", "/.slice/a.service", flat{}},
		{"a target, which has no cgroup", "/system.slice/basic.target", flat{Slice: "system.slice"}},
		{"a byte that no unit name holds", "/system.slice/a b.service", flat{Slice: "system.slice"}},
		{"a name too long for a unit", "/" + strings.Repeat("a", 248) + ".service", flat{}},
		{"a name just short enough", "/" + strings.Repeat("a", 247) + ".service", flat{Unit: strings.Repeat("a", 247) + ".service"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, parseFlat(tt.cgroup)); diff != "" {
				t.Errorf("Parse(%q) (-want +got):\n%s", tt.cgroup, diff)
			}
		})
	}
}

func TestParseFindsContainersOfEachRuntime(t *testing.T) {
	for _, tt := range []struct {
		name, cgroup string
		want         flat
	}{
		{
			"docker with systemd", "/system.slice/docker-" + idA + ".scope",
			flat{Unit: "docker-" + idA + ".scope", Slice: "system.slice", Runtime: "docker", ContainerID: idA},
		},
		{
			"systemd inside of docker", "/system.slice/docker-" + idA + ".scope/system.slice/nginx.service",
			flat{Unit: "docker-" + idA + ".scope", Slice: "system.slice", Runtime: "docker", ContainerID: idA},
		},
		{"docker with cgroupfs", "/docker/" + idA, flat{Runtime: "docker", ContainerID: idA}},
		{"systemd inside of docker with cgroupfs", "/docker/" + idA + "/init.scope", flat{Runtime: "docker", ContainerID: idA}},
		{"docker with another parent", "/ecs/4ad0/" + idA, flat{ContainerID: idA}},
		{
			"docker with systemd's path but cgroupfs", "/system.slice:docker:" + idA,
			flat{Runtime: "docker", ContainerID: idA},
		},
		{"docker in docker", "/docker/" + idA + "/docker/" + idB, flat{Runtime: "docker", ContainerID: idB}},
		{
			"podman", "/machine.slice/libpod-" + idA + ".scope",
			flat{Unit: "libpod-" + idA + ".scope", Slice: "machine.slice", Runtime: "podman", ContainerID: idA},
		},
		{
			"podman with crun", "/machine.slice/libpod-" + idA + ".scope/container",
			flat{Unit: "libpod-" + idA + ".scope", Slice: "machine.slice", Runtime: "podman", ContainerID: idA},
		},
		{"podman with cgroupfs", "/libpod_parent/libpod-" + idA, flat{Runtime: "podman", ContainerID: idA}},
		{
			"podman of a user", "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + idA + ".scope/container",
			flat{Unit: "user@1000.service", UserUnit: "libpod-" + idA + ".scope", Slice: "user-1000.slice", Runtime: "podman", ContainerID: idA},
		},
		{
			"podman by Quadlet", "/system.slice/web.service/libpod-payload-" + idA,
			flat{Unit: "web.service", Slice: "system.slice", Runtime: "podman", ContainerID: idA},
		},
		{
			"podman's conmon", "/machine.slice/libpod-conmon-" + idA + ".scope",
			flat{Unit: "libpod-conmon-" + idA + ".scope", Slice: "machine.slice"},
		},
		{
			"containerd with systemd", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + podEscaped + ".slice/cri-containerd-" + idA + ".scope",
			flat{
				Unit: "cri-containerd-" + idA + ".scope", Slice: "kubepods-burstable-pod" + podEscaped + ".slice",
				Runtime: "containerd", ContainerID: idA, PodUID: pod,
			},
		},
		{
			"a guaranteed pod", "/kubepods.slice/kubepods-pod" + podEscaped + ".slice/cri-containerd-" + idA + ".scope",
			flat{
				Unit: "cri-containerd-" + idA + ".scope", Slice: "kubepods-pod" + podEscaped + ".slice",
				Runtime: "containerd", ContainerID: idA, PodUID: pod,
			},
		},
		{
			"containerd with systemd's path but cgroupfs",
			"/system.slice/containerd.service/kubepods-besteffort-pod" + podEscaped + ".slice:cri-containerd:" + idA,
			flat{Unit: "containerd.service", Slice: "system.slice", Runtime: "containerd", ContainerID: idA, PodUID: pod},
		},
		{
			"the kubelet's cgroupfs driver", "/kubepods/burstable/pod" + pod + "/" + idA,
			flat{ContainerID: idA, PodUID: pod},
		},
		{"a static pod", "/kubepods/pod" + staticPod + "/" + idA, flat{ContainerID: idA, PodUID: staticPod}},
		{
			"kind: a pod in a node that is a container",
			"/system.slice/docker-" + idA + ".scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod" + podEscaped + ".slice/cri-containerd-" + idB + ".scope",
			flat{Unit: "docker-" + idA + ".scope", Slice: "system.slice", Runtime: "containerd", ContainerID: idB, PodUID: pod},
		},
		{
			"nerdctl", "/system.slice/nerdctl-" + idA + ".scope",
			flat{Unit: "nerdctl-" + idA + ".scope", Slice: "system.slice", Runtime: "containerd", ContainerID: idA},
		},
		{
			"cri-o", "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + podEscaped + ".slice/crio-" + idA + ".scope",
			flat{
				Unit: "crio-" + idA + ".scope", Slice: "kubepods-besteffort-pod" + podEscaped + ".slice",
				Runtime: "cri-o", ContainerID: idA, PodUID: pod,
			},
		},
		{
			"cri-o with cgroupfs", "/kubepods/besteffort/pod" + pod + "/crio-" + idA,
			flat{Runtime: "cri-o", ContainerID: idA, PodUID: pod},
		},
		{
			"cri-o's conmon", "/kubepods.slice/kubepods-pod" + podEscaped + ".slice/crio-conmon-" + idA + ".scope",
			flat{Unit: "crio-conmon-" + idA + ".scope", Slice: "kubepods-pod" + podEscaped + ".slice"},
		},
		{"lxc", "/lxc.payload.web-1/system.slice/nginx.service", flat{Runtime: "lxc", ContainerID: "web-1"}},
		{"lxc with a folder", "/lxc.payload/web", flat{Runtime: "lxc", ContainerID: "web"}},
		{"lxc of Proxmox VE", "/lxc/100/ns/system.slice/nginx.service", flat{Runtime: "lxc", ContainerID: "100"}},
		{"lxc's monitor", "/lxc.monitor.web", flat{}},
		{
			"nspawn", `/machine.slice/machine-my\x2dbox.scope/payload/system.slice/nginx.service`,
			flat{Unit: `machine-my\x2dbox.scope`, Slice: "machine.slice", Runtime: "nspawn", ContainerID: "my-box"},
		},
		{
			"nspawn as a service", "/machine.slice/systemd-nspawn@my-box.service/payload/init.scope",
			flat{Unit: "systemd-nspawn@my-box.service", Slice: "machine.slice", Runtime: "nspawn", ContainerID: "my-box"},
		},
		{
			"nspawn itself", "/machine.slice/systemd-nspawn@box.service/supervisor",
			flat{Unit: "systemd-nspawn@box.service", Slice: "machine.slice"},
		},
		{
			"a virtual machine", `/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator`,
			flat{Unit: `machine-qemu\x2d1\x2dvm.scope`, Slice: "machine.slice"},
		},
		{"an id that is too short", "/docker/" + idA[1:], flat{}},
		{"an id with a capital", "/docker/" + strings.ToUpper(idA), flat{}},
		{"no container of docker's", "/docker/buildkit/x", flat{}},
		{"an unknown prefix", "/system.slice/backup-" + idA + ".scope", flat{Unit: "backup-" + idA + ".scope", Slice: "system.slice"}},
		{"docker never leaves out .scope", "/docker-" + idA, flat{}},
		{"pod without the kubelet's cgroup", "/pod" + pod, flat{}},
		{"a slice of someone else's pods", "/fish-pod" + podEscaped + ".slice", flat{Slice: "fish-pod" + podEscaped + ".slice"}},
		{"no pod's UID", "/kubepods/podcast", flat{}},
		{
			"a slice below that of something like a pod", "/kubepods-pod0d5a1f2e_7c3b_4e69_9a80-61f4b2c7d8e3.slice",
			flat{Slice: "kubepods-pod0d5a1f2e_7c3b_4e69_9a80-61f4b2c7d8e3.slice"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, parseFlat(tt.cgroup)); diff != "" {
				t.Errorf("Parse(%q) (-want +got):\n%s", tt.cgroup, diff)
			}
		})
	}
}

func TestParseTakesTimeLinearInThePath(t *testing.T) {
	// A pathological path of a size no kernel gives; quadratic work on it would
	// run into the test's time limit.
	long := strings.Repeat("/kubepods-pod_-pod", 1<<18) + "/docker/" + idA
	if got := parseFlat(long).ContainerID; got != idA {
		t.Errorf("ContainerID = %q, want %q", got, idA)
	}
	if got := parseFlat("/" + strings.Repeat("a-pod", 1<<20) + ".slice"); got != (flat{}) {
		t.Errorf("got %+v, want nothing", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"/", "/system.slice/nginx.service", "/user.slice/user-1000.slice/user@1000.service/app.slice/a.scope",
		"/_cpu.service", "/docker/" + idA, "/system.slice/docker-" + idA + ".scope", "/system.slice:docker:" + idA,
		"/kubepods/burstable/pod" + pod + "/" + idA, "/kubepods.slice/kubepods-pod" + podEscaped + ".slice/crio-conmon-" + idA + ".scope",
		"/kubepods.slice/kubepods-pod0d5a1f2e_7c3b_4e69_9a80-61f4b2c7d8e3.slice/",
		`/machine.slice/machine-a\x2db.scope/payload`, "/lxc.payload.a/b", "/lxc/a", `/systemd-nspawn@\x2.service/payload`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, cgroup string) {
		id := parseFlat(cgroup)
		for field, value := range map[string]string{
			"Unit": id.Unit, "UserUnit": id.UserUnit, "Slice": id.Slice,
			"PodUID": strings.ReplaceAll(id.PodUID, "-", "_"),
		} {
			if !strings.Contains(cgroup, value) && !strings.Contains(cgroup, strings.ReplaceAll(value, "_", "-")) {
				t.Errorf("%s %q is not in %q", field, value, cgroup)
			}
		}
		if id.Runtime == "nspawn" {
			if !strings.Contains(cgroup, escapeHex(id.ContainerID)) && !strings.Contains(unescapeHex(cgroup), id.ContainerID) {
				t.Errorf("machine %q is not in %q", id.ContainerID, cgroup)
			}
		} else if !strings.Contains(cgroup, id.ContainerID) {
			t.Errorf("ContainerID %q is not in %q", id.ContainerID, cgroup)
		}
		if id.Runtime != "" && id.ContainerID == "" {
			t.Errorf("%q: runtime %q of no container", cgroup, id.Runtime)
		}
		if id.UserUnit != "" && !isUserManager(id.Unit) {
			t.Errorf("%q: user unit %q below %q", cgroup, id.UserUnit, id.Unit)
		}
		for _, unit := range []string{id.Unit, id.UserUnit, id.Slice} {
			if unit == "" {
				continue
			}
			patterns, err := UnitPatterns(unit)
			if err != nil {
				t.Errorf("%q: no patterns for unit %q: %v", cgroup, unit, err)
			}
			if !matchesComponent(patterns, cgroup) {
				t.Errorf("%q: %q do not match unit %q", cgroup, patterns, unit)
			}
		}
	})
}

// matchesComponent is what the filter in the kernel does.
func matchesComponent(patterns []string, cgroup string) bool {
	for component := range strings.SplitSeq(cgroup, "/") {
		for _, pattern := range patterns {
			if glob(pattern, component) {
				return true
			}
		}
	}
	return false
}

func glob(pattern, s string) bool {
	star, mark, i := -1, 0, 0
	p := 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
