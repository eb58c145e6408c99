// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestSizesAreReadWithAndWithoutAUnit(t *testing.T) {
	for text, want := range map[string]struct {
		bytes   size
		written string
	}{
		"0": {0, "0"}, "4096": {4096, "4K"}, "5000": {5000, "5000"}, "4096K": {4 << 20, "4M"}, "4m": {4 << 20, "4M"},
		"3G": {3 << 30, "3G"}, "4294967295": {1<<32 - 1, "4294967295"},
	} {
		var s size
		if err := s.Set(text); err != nil || s != want.bytes || s.String() != want.written {
			t.Errorf("%q is %d, %q: %v", text, uint32(s), s.String(), err)
		}
	}
	for _, text := range []string{"", "M", "-1", "4G", "4294967296", "1.5M", "4MB", "4 M", "4T"} {
		if s := size(7); s.Set(text) == nil || s != 7 {
			t.Errorf("%q is %d", text, uint32(s))
		}
	}
}
