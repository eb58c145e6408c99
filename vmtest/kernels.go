// SPDX-License-Identifier: Apache-2.0

// Package vmtest runs compiled Go test binaries on stock Debian kernels in
// virtual machines and says which test holds on which kernel. The command is
// vmtest/run, the program inside the machine vmtest/init; README.md tells how
// to use them.
package vmtest

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

//go:embed kernels.txt
var kernelTable string

// Kernel is one line of kernels.txt.
type Kernel struct {
	// Name is what tests find in SDTRACE_KERNEL, for example "6.12-amd64".
	Name string
	// Arch is Debian's and Go's name of the architecture: "amd64" or "arm64".
	Arch string
	// Suite and Package say where fetch-kernels.sh takes the kernel from.
	Suite, Package string
	// Backends lists the backends that must attach on this kernel.
	Backends []string
}

// Kernels returns the kernels of kernels.txt in their order there. It panics
// when the embedded table is malformed, which a unit test excludes.
func Kernels() []Kernel {
	kernels, err := parseKernels(kernelTable)
	if err != nil {
		panic(err)
	}
	return kernels
}

func parseKernels(table string) ([]Kernel, error) {
	var kernels []Kernel
	seen := map[string]bool{}
	for n, line := range strings.Split(table, "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) != 5 {
			return nil, fmt.Errorf("kernels.txt line %d: %d columns, not 5", n+1, len(fields))
		}
		k := Kernel{
			Name: fields[0], Arch: fields[1], Suite: fields[2], Package: fields[3],
			Backends: strings.Split(fields[4], ","),
		}
		if k.Arch != "amd64" && k.Arch != "arm64" {
			return nil, fmt.Errorf("kernels.txt line %d: unknown architecture %q", n+1, k.Arch)
		}
		if seen[k.Name] {
			return nil, fmt.Errorf("kernels.txt line %d: %s stands there twice", n+1, k.Name)
		}
		seen[k.Name] = true
		kernels = append(kernels, k)
	}
	return kernels, nil
}

// Env is what tests can ask about the kernel they run on, in the form of
// os.Environ. A test must fail, not skip, when a backend named in
// SDTRACE_BACKENDS does not attach.
func (k Kernel) Env() []string {
	return []string{
		"SDTRACE_VM=1",
		"SDTRACE_KERNEL=" + k.Name,
		"SDTRACE_BACKENDS=" + strings.Join(k.Backends, ","),
	}
}

// Image is the path of the bootable kernel image below the cache.
func (k Kernel) Image(cache string) string {
	return filepath.Join(cache, "kernels", k.Name, "vmlinuz")
}

// CacheDir is the directory that fetch-kernels.sh fills: $SDTRACE_CACHE, else
// sdtrace below $XDG_CACHE_HOME or ~/.cache. It fails when none of the three
// variables it depends on is set.
func CacheDir() (string, error) {
	if dir := os.Getenv("SDTRACE_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache directory: %w", err)
	}
	return filepath.Join(dir, "sdtrace"), nil
}
