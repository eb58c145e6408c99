// SPDX-License-Identifier: Apache-2.0

package proc

import "testing"

func TestBestCgroup(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"version 2", "0::/system.slice/a.service\n", "/system.slice/a.service"},
		{"version 2, the root", "0::/\n", "/"},
		{"hybrid, version 2 says it", "8:pids:/x\n1:name=systemd:/y\n0::/system.slice/a.service\n", "/system.slice/a.service"},
		{"hybrid, version 1 says it", "9:name=elogind:/z\n8:pids:/docker/x\n7:cpu:/\n0::/\n", "/docker/x"},
		{"colons in the path", "0::/a:b:c\n", "/a:b:c"},
		{"nothing", "", ""},
	} {
		if got := bestCgroup([]byte(test.text)); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestParseInode(t *testing.T) {
	for link, want := range map[string]uint64{
		"socket:[123]": 123, "socket:[4294967295]": 4294967295,
		"socket:[]": 0, "socket:123": 0, "pipe:[123]": 0, "socket:[12x]": 0, "socket": 0, "": 0, "/socket:[1]": 0,
	} {
		if got, ok := ParseInode([]byte(link), "socket"); got != want || ok != (want != 0) {
			t.Errorf("%q: %d, %v, want %d", link, got, ok, want)
		}
	}
}
