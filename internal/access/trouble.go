// SPDX-License-Identifier: Apache-2.0

package access

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/sockdiag"
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
	if denied, err := Try(p, path); err == nil && denied != nil {
		who, err := Of(p)
		if err != nil {
			return ""
		}
		what := "may not search the directory"
		if denied.IsSocket {
			what = "may not write to the socket"
		}
		return fmt.Sprintf("uid %d %s %s (mode %04o, of %d:%d)", who.UID(), what, denied.Path, denied.Mode, denied.UID, denied.GID)
	}
	fd, stat, err := p.OpenPath(path)
	switch {
	case err != nil && proc.IsMissing(err):
		return fmt.Sprintf("there is no %s%s", path, below(p))
	case err != nil:
		return ""
	}
	defer unix.Close(fd)
	if stat.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Sprintf("%s%s is no socket", path, below(p))
	}
	switch _, err := sockdiag.ConnectFile(fd); {
	case errors.Is(err, unix.ECONNREFUSED):
		return fmt.Sprintf("nobody reads from %s%s", path, below(p))
	case errors.Is(err, unix.EPROTOTYPE):
		return fmt.Sprintf("%s%s is a socket of another type", path, below(p))
	}
	return ""
}

// below says which root directory a process has, if that is not the file system's.
func below(p proc.Process) string {
	root, err := p.Link("root")
	if err != nil || root == "/" {
		return ""
	}
	return " below its root directory " + root
}
