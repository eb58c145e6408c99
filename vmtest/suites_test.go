// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"strings"
	"testing"
)

func TestAMistakeInTheSuitesIsNamed(t *testing.T) {
	for line, want := range map[string]string{
		"a 1 all":                       "3 columns",
		"a 3 all why":                   `no tier "3"`,
		"a - all why":                   "kernels without a tier",
		"a 1 - why":                     "a tier without kernels",
		"a 1 4.19-amd64 why":            "boots no kernel 4.19-amd64",
		"a 2 6.1-arm64 why":             "boots no kernel 6.1-arm64",
		"a 1 6.1-amd64,6.1-amd64 why":   "boots no kernel 6.1-amd64",
		"a 1 6.1-amd64,prove:4.19 why":  "boots no kernel 4.19",
		"a 1 all why\na 1 6.1-amd64 so": "line 2: a stands there twice",
	} {
		if _, err := parseSuites(line, Kernels()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", line, err, want)
		}
	}
}

func TestAKernelCanBeLeftToMakeProve(t *testing.T) {
	suites, err := parseSuites("a 2 5.10-amd64,prove:6.1-amd64,sid-amd64 why", Kernels())
	if err != nil {
		t.Fatal(err)
	}
	if only, err := parseSuites("a 2 prove:6.1-amd64 why", Kernels()); err != nil || only[0].Kernels != nil || len(only[0].ProvedOn) != 1 {
		t.Errorf("left to make prove alone: %v, %v", only, err)
	}
	if s := suites[0]; len(s.Kernels) != 1 || s.Kernels[0].Name != "5.10-amd64" || len(s.ProvedOn) != 2 || s.ProvedOn[1].Name != "sid-amd64" {
		t.Errorf("it is for %v and %v", s.Kernels, s.ProvedOn)
	}
}
