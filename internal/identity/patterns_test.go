// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUnitPatternsNameTheUnitsCgroup(t *testing.T) {
	for _, tt := range []struct {
		unit string
		want []string
	}{
		{"nginx", []string{"nginx.service", "_nginx.service"}},
		{"nginx.service", []string{"nginx.service", "_nginx.service"}},
		{"foo.bar", []string{"foo.bar.service", "_foo.bar.service"}},
		{"getty@tty1", []string{"getty@tty1.service", "_getty@tty1.service"}},
		{"session-4.scope", []string{"session-4.scope", "_session-4.scope"}},
		{"app.slice", []string{"app.slice", "_app.slice"}},
		{`srv-my\x2ddata.mount`, []string{`srv-my\x2ddata.mount`, `_srv-my\x2ddata.mount`}},
		{"_x.service", []string{"__x.service"}},
		{"nginx*", []string{"nginx*", "_nginx*"}},
		{"getty@*.service", []string{"getty@*.service", "_getty@*.service"}},
		{"ng?nx.service", []string{"ng?nx.service", "_ng?nx.service"}},
	} {
		t.Run(tt.unit, func(t *testing.T) {
			got, err := UnitPatterns(tt.unit)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnitPatternsRefuseWhatIsNoUnitWithACgroup(t *testing.T) {
	for _, tt := range []struct{ unit, wantInError string }{
		{"", "empty"},
		{"/system.slice/nginx.service", "--cgroup"},
		{"basic.target", "no processes"},
		{"getty@.service", `"getty@*.service"`},
		{".service", "not a valid unit name"},
		{"@x.service", "not a valid unit name"},
		{"a b", "not a valid unit name"},
		{"a\x00", "not a valid unit name"},
		{"ngin[xy]*", "holds '['"},
		{strings.Repeat("a", 248), "not a valid unit name"},
		{strings.Repeat("a", 255) + "*", "longer than"},
	} {
		t.Run(tt.unit, func(t *testing.T) {
			got, err := UnitPatterns(tt.unit)
			if err == nil {
				t.Fatalf("got %q, want an error", got)
			}
			if !strings.Contains(err.Error(), tt.wantInError) {
				t.Errorf("error %q does not say %q", err, tt.wantInError)
			}
		})
	}
}

// Each path is one that Parse finds the container in.
func TestContainerPatternsMatchEachFormOfTheContainer(t *testing.T) {
	forms := []string{
		"/docker/" + idA,
		"/system.slice/docker-" + idA + ".scope",
		"/system.slice:docker:" + idA,
		"/machine.slice/libpod-" + idA + ".scope/container",
		"/libpod_parent/libpod-" + idA,
		"/system.slice/web.service/libpod-payload-" + idA,
		"/kubepods.slice/kubepods-pod" + podEscaped + ".slice/cri-containerd-" + idA + ".scope",
		"/system.slice/containerd.service/kubepods-pod" + podEscaped + ".slice:cri-containerd:" + idA,
		"/kubepods/burstable/pod" + pod + "/" + idA,
		"/kubepods.slice/kubepods-pod" + podEscaped + ".slice/crio-" + idA + ".scope",
		"/kubepods/pod" + pod + "/crio-" + idA,
		"/system.slice/nerdctl-" + idA + ".scope",
	}
	others := []string{
		"/docker/" + idB,
		"/system.slice/docker-" + idB + ".scope",
		"/system.slice/" + idA[:4] + ".service",
		"/machine.slice/libpod-conmon-" + idA + ".scope",
		"/kubepods.slice/kubepods-pod" + podEscaped + ".slice/crio-conmon-" + idA + ".scope",
		"/",
	}
	for _, arg := range []string{idA, idA[:12], idA[:4]} {
		patterns, err := ContainerPatterns(arg)
		if err != nil {
			t.Fatal(err)
		}
		for _, form := range forms {
			if parseFlat(form).ContainerID != idA {
				t.Errorf("Parse(%q) does not find the container", form)
			}
			if !matchesComponent(patterns, form) {
				t.Errorf("container %q does not match %q: %q", arg, form, patterns)
			}
		}
		for _, other := range others {
			if matchesComponent(patterns, other) {
				t.Errorf("container %q matches %q: %q", arg, other, patterns)
			}
		}
	}
}

func TestContainerPatternsMatchNames(t *testing.T) {
	for _, tt := range []struct {
		name, cgroup string
		want         bool
	}{
		{"web", "/lxc/web/ns", true},
		{"web", "/lxc/web2/ns", false},
		{"web-1", "/lxc.payload.web-1/init.scope", true},
		{"web-1", "/lxc.payload.web-10/init.scope", false},
		{"web-1", "/lxc.monitor.web-1", false},
		{"my-box", `/machine.slice/machine-my\x2dbox.scope/payload`, true},
		{"box", `/machine.slice/machine-my\x2dbox.scope/payload`, false},
		{"my-box", "/machine.slice/systemd-nspawn@my-box.service/payload", true},
		{"my-box", `/machine.slice/systemd-nspawn@my\x2dbox.service/payload`, true},
		{"my-box", "/machine.slice/systemd-nspawn@my.service/payload", false},
		{"cafe", "/lxc.payload.cafe", true},
		{"cafe", "/system.slice/cafe.service", false},
		{"ab", "/ab", true},
		{"ab", "/docker/ab" + idA[2:], false},
		{"docker-" + idA + ".scope", "/system.slice/docker-" + idA + ".scope", true},
	} {
		t.Run(tt.name+" in "+tt.cgroup, func(t *testing.T) {
			patterns, err := ContainerPatterns(tt.name)
			if err != nil {
				t.Fatal(err)
			}
			if got := matchesComponent(patterns, tt.cgroup); got != tt.want {
				t.Errorf("match is %v, want %v: %q", got, tt.want, patterns)
			}
		})
	}
}

func TestContainerPatternsRefuseWhatIsNoContainer(t *testing.T) {
	for _, tt := range []struct{ name, wantInError string }{
		{"", "empty"},
		{"a/b", "contains '/'"},
		{"web*", "contains '*'"},
		{"web\n", `contains '\n'`},
		{"nginx.service", "use --unit"},
		{strings.Repeat("g", 256), "longer than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ContainerPatterns(tt.name)
			if err == nil {
				t.Fatalf("got %q, want an error", got)
			}
			if !strings.Contains(err.Error(), tt.wantInError) {
				t.Errorf("error %q does not say %q", err, tt.wantInError)
			}
		})
	}
}
