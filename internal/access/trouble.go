// SPDX-License-Identifier: Apache-2.0

package access

import (
	"fmt"
	"strings"

	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// Trouble says in a sentence without a full stop why a process that wants to notify cannot do so, by the
// NOTIFY_SOCKET that it was executed with: "" if nothing is found, or it cannot be looked at. It connects to the
// socket, and sends nothing.
func Trouble(p proc.Process) string {
	environ, err := p.Read("environ")
	if err != nil || !proc.IsEnvironment(environ) {
		return ""
	}
	path, ok := proc.Variable(environ, "NOTIFY_SOCKET")
	switch {
	case !ok && len(environ) > 0:
		return "it was executed without NOTIFY_SOCKET"
	case !strings.HasPrefix(path, "/"):
		return ""
	}
	return TroubleAt(p, events.Address(path))
}

// TroubleAt is the same for an address.
func TroubleAt(p proc.Process, path events.Address) string {
	r := ReachOf(p, path)
	below := ""
	if r.Root != "" {
		below = " below its root directory " + r.Root
	}
	switch r.State {
	case Forbidden:
		who, err := Of(p)
		if err != nil {
			return ""
		}
		return fmt.Sprintf("uid %d %s", who.UID(), r.Denied)
	case Missing:
		return fmt.Sprintf("there is no %s%s", path, below)
	case NotSocket:
		return fmt.Sprintf("%s%s is no socket", path, below)
	case Nobody:
		return fmt.Sprintf("nobody reads from %s%s", path, below)
	case WrongType:
		return fmt.Sprintf("%s%s is a socket of another type", path, below)
	}
	return ""
}

// String says what may not be done, after the name of who may not.
func (d *Denied) String() string {
	what := "may not search the directory"
	if d.IsSocket {
		what = "may not write to the socket"
	}
	return fmt.Sprintf("%s %s (mode %04o, of %d:%d)", what, d.Path, d.Mode, d.UID, d.GID)
}
