// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"testing"

	"github.com/sdtrace/sdtrace/internal/enrich/machines"
)

// What was passed on may be what is filtered out: only without filters can a relay be
// said to have withheld something.
func TestEveryFilterHidesSomething(t *testing.T) {
	for name, match := range map[string]Match{
		"":           {},
		"Units":      {Units: []string{"nginx"}},
		"Containers": {Containers: []string{"not-there-yet"}},
		"Sockets":    {Sockets: []string{"*"}},
		"Keys":       {Keys: []string{"READY"}},
		"Failed":     {Failed: true},
	} {
		r, err := resolve(t.Context(), match, machines.New())
		if err != nil {
			t.Fatal(err)
		}
		if r.seesAll() != (name == "") {
			t.Errorf("with %s it sees all: %v", name, r.seesAll())
		}
	}
}
