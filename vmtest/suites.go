// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

//go:embed suites.txt
var suiteTable string

// Tiers are those of vmtest/run, from the one whose machines take longest.
var Tiers = []string{"2", "cost", "boot", "1"}

// provedMark is in suites.txt before the kernels that are left to make prove.
const provedMark = ",prove:"

// Suite is one line of suites.txt: a package's tests on the kernels of a tier.
type Suite struct {
	// Package is the directory below the module, such as "internal/tracer".
	Package string
	// Tier is one of Tiers, empty where the tests run on this machine alone.
	Tier string
	// Kernels are those on which it runs, in the order of kernels.txt, and ProvedOn those on which only make prove
	// runs it.
	Kernels, ProvedOn []Kernel
	// Why says what a kernel can change.
	Why string
}

// Suites returns the suites of suites.txt in their order there. It panics when the embedded
// table is malformed, which a unit test excludes.
func Suites() []Suite {
	suites, err := parseSuites(suiteTable, Kernels())
	if err != nil {
		panic(err)
	}
	return suites
}

// Bootable reports whether machines of a tier boot a kernel: all but tier 1 are for amd64.
func Bootable(tier string, kernel Kernel) bool {
	return tier == "1" || kernel.Arch == "amd64"
}

func parseSuites(table string, kernels []Kernel) ([]Suite, error) {
	var suites []Suite
	for n, line := range strings.Split(table, "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) < 4 {
			return nil, fmt.Errorf("suites.txt line %d: %d columns, not 4", n+1, len(fields))
		}
		s := Suite{Package: fields[0], Tier: fields[1], Why: strings.Join(fields[3:], " ")}
		if slices.ContainsFunc(suites, func(o Suite) bool { return o.Package == s.Package && o.Tier == s.Tier }) {
			return nil, fmt.Errorf("suites.txt line %d: %s stands there twice for tier %s", n+1, s.Package, s.Tier)
		}
		var err error
		switch names := fields[2]; {
		case (s.Tier == "-") != (names == "-"):
			return nil, fmt.Errorf("suites.txt line %d: a tier without kernels, or kernels without a tier", n+1)
		case s.Tier == "-":
			s.Tier = ""
		case !slices.Contains(Tiers, s.Tier):
			return nil, fmt.Errorf("suites.txt line %d: there is no tier %q", n+1, s.Tier)
		default:
			names, proved, isProved := strings.Cut(","+names, provedMark)
			if names != "" {
				s.Kernels, err = kernelsOf(s.Tier, names[1:], kernels)
			}
			if err == nil && isProved {
				s.ProvedOn, err = kernelsOf(s.Tier, proved, kernels)
			}
			if err != nil {
				return nil, fmt.Errorf("suites.txt line %d: %w", n+1, err)
			}
		}
		suites = append(suites, s)
	}
	return suites, nil
}

// kernelsOf are those that names lists, separated by commas, or all that the tier can boot.
func kernelsOf(tier, names string, kernels []Kernel) (list []Kernel, err error) {
	wanted := strings.Split(names, ",")
	for _, k := range kernels {
		i := slices.Index(wanted, k.Name)
		if !Bootable(tier, k) {
			continue
		}
		if i >= 0 || names == "all" {
			list = append(list, k)
		}
		if i >= 0 {
			wanted = slices.Delete(wanted, i, i+1)
		}
	}
	if names != "all" && len(wanted) > 0 {
		return nil, fmt.Errorf("tier %s boots no kernel %s", tier, strings.Join(wanted, ", "))
	}
	return list, nil
}
