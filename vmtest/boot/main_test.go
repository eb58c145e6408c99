// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package boot_test boots a whole Debian with its systemd, its message bus and docker
// in a virtual machine, with "sdtrace" capturing since before systemd began, and
// holds documents against what comes out.
package boot_test

import (
	"fmt"
	"os"
	"testing"
)

// roles are what this binary does in the machine instead of running tests, by its
// first argument.
var roles = map[string]func() error{
	"walk": playWalk,
}

func TestMain(m *testing.M) {
	if os.Getpid() == 1 {
		fmt.Fprintf(os.Stderr, "init: %v\n", playInit())
		os.Exit(1)
	}
	if len(os.Args) > 1 {
		if play := roles[os.Args[1]]; play != nil {
			if err := play(); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}
