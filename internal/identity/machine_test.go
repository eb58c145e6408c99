// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/pkg/events"
)

func TestUnitsBelowAnotherManagerAreReadFromItsRoot(t *testing.T) {
	lab := &events.Container{Runtime: "lxc", ID: "web"}
	docker := &events.Container{Runtime: "docker", ID: idA}
	for _, tt := range []struct {
		name, root, cgroup string
		want               events.Identity
	}{
		{"the host's", "", "/system.slice/a.service", events.Identity{Unit: "a.service", Slice: "system.slice"}},
		{"the host's system manager", "/", "/system.slice/a.service", events.Identity{Unit: "a.service", Slice: "system.slice"}},
		{
			"a user's manager of the host", "/user.slice/user-7.slice/user@7.service", "/user.slice/user-7.slice/user@7.service/app.slice/a.service",
			events.Identity{Unit: "user@7.service", UserUnit: "a.service", Slice: "user-7.slice"},
		},
		{"a control group of its own", "/lab", "/lab/system.slice/a.service", events.Identity{Machine: "lab", Unit: "a.service", Slice: "system.slice"}},
		{"the manager itself", "/lab", "/lab/init.scope", events.Identity{Machine: "lab", Unit: "init.scope"}},
		{"the root, which no unit has", "/lab", "/lab", events.Identity{}},
		{
			"a user's manager in a machine", "/lab", "/lab/user.slice/user-7.slice/user@7.service/app.slice/a.service",
			events.Identity{Machine: "lab", Unit: "user@7.service", UserUnit: "a.service", Slice: "user-7.slice"},
		},
		{
			"nspawn", `/machine.slice/machine-my\x2dbox.scope/payload`, `/machine.slice/machine-my\x2dbox.scope/payload/system.slice/a.service`,
			events.Identity{Machine: "my-box", Unit: "a.service", Slice: "system.slice", Container: &events.Container{Runtime: "nspawn", ID: "my-box"}},
		},
		{
			"nspawn in a service", "/system.slice/web.service/payload", "/system.slice/web.service/payload/system.slice/a.service",
			events.Identity{Machine: "web", Unit: "a.service", Slice: "system.slice"},
		},
		{
			"lxc", "/lxc.payload.web", "/lxc.payload.web/system.slice/a.service",
			events.Identity{Machine: "web", Unit: "a.service", Slice: "system.slice", Container: lab},
		},
		{
			"docker", "/system.slice/docker-" + idA + ".scope", "/system.slice/docker-" + idA + ".scope/system.slice/a.service",
			events.Identity{Machine: idA, Unit: "a.service", Slice: "system.slice", Container: docker},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Cgroup = tt.cgroup
			if diff := cmp.Diff(tt.want, Below(tt.root, tt.cgroup)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnitNamesAreAllOnTheWay(t *testing.T) {
	for cgroup, want := range map[string][]string{
		"/": nil, "/lab/a.service": nil,
		"/system.slice/system-getty.slice/getty@tty1.service/x/b.service": {"system.slice", "system-getty.slice", "getty@tty1.service"},
		"/user.slice/user-7.slice/user@7.service/app.slice/a.service":     {"user.slice", "user-7.slice", "user@7.service", "app.slice", "a.service"},
		"/system.slice/_cpu.service":                                      {"system.slice", "cpu.service"},
	} {
		if got := UnitNames(cgroup); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", cgroup, got, want)
		}
	}
}
