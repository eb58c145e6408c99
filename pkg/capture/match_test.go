// SPDX-License-Identifier: Apache-2.0

package capture

import "testing"

func TestAUnitBelongsToOneManager(t *testing.T) {
	nothing := func(string) string { return "" }
	const box, inner = "/lab.slice/box", "/lab.slice/box/system.slice/inner.service/payload"
	nested := []string{inner, box}
	for _, tt := range []struct {
		unit, cgroup string
		roots        []string
		calls        func(string) string
		want         bool
	}{
		{"web", "/system.slice/web.service", nil, nothing, true},
		{"box:web", "/system.slice/web.service", nil, nothing, false},
		{"*:web", "/system.slice/web.service", nil, nothing, false},
		{"web", box + "/system.slice/web.service", []string{box}, nothing, false},
		{":web", box + "/system.slice/web.service", []string{box}, nothing, false},
		{"box:web", box + "/system.slice/web.service", []string{box}, nothing, true},
		{"b*:web", box + "/system.slice/web.service", []string{box}, nothing, true},
		{"*:web", box + "/system.slice/web.service", []string{box}, nothing, true},
		{"shop:web", box + "/system.slice/web.service", []string{box}, func(string) string { return "shop" }, true},
		// The slice that a machine is in is a unit of the host, and so is one that is its root.
		{"lab.slice", box + "/system.slice/web.service", []string{box}, nothing, true},
		{"web", "/lab.slice/web.service", []string{"/lab.slice"}, nothing, false},
		{"lab.slice", "/lab.slice/web.service", []string{"/lab.slice"}, nothing, true},
		// A machine within another one is a unit of that.
		{"inner:web", inner + "/system.slice/web.service", nested, nothing, true},
		{"box:inner", inner + "/system.slice/web.service", nested, nothing, true},
		{"box:web", inner + "/system.slice/web.service", nested, nothing, false},
		{"inner:inner", inner + "/system.slice/web.service", nested, nothing, false},
	} {
		u, err := parseUnit(tt.unit)
		if err != nil {
			t.Fatal(err)
		}
		if got := u.matches(tt.cgroup, tt.roots, tt.calls); got != tt.want {
			t.Errorf("%s and %s below %q: %v, want %v", tt.unit, tt.cgroup, tt.roots, got, tt.want)
		}
	}
}
