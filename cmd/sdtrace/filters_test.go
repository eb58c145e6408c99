// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/spf13/cobra"
)

// What was passed on may be what is filtered out: only without filters can a relay be
// said to have withheld something.
func TestEveryFilterHidesSomething(t *testing.T) {
	for name, flags := range map[string]filterFlags{
		"":            {},
		"--unit":      {units: []string{"nginx"}},
		"--container": {containers: []string{"not-there-yet"}},
		"--socket":    {sockets: []string{"*"}},
		"--key":       {keys: []string{"READY"}},
		"--failed":    {failed: true},
	} {
		r, err := flags.resolve(&cobra.Command{})
		if err != nil {
			t.Fatal(err)
		}
		if r.seesAll() != (name == "") {
			t.Errorf("with %q it sees all: %v", name, r.seesAll())
		}
	}
}
