// SPDX-License-Identifier: Apache-2.0

//go:build linux

package why

import (
	"fmt"
	"slices"
)

// clients are programs that have another process start a container, which does not get their NOTIFY_SOCKET.
var clients = []string{"docker", "nerdctl", "ctr", "docker-compose", "lxc", "machinectl"}

// IsContainerClient reports whether a process of that name only asks another one for a container.
func IsContainerClient(comm string) bool { return slices.Contains(clients, comm) }

// containerClient is seen by a main process that is one of these.
func containerClient(c *Case) *Finding {
	p := c.Main()
	if !c.silent() || p == nil || !IsContainerClient(p.Comm) {
		return nil
	}
	return &Finding{
		Certainty: Likely,
		Because: fmt.Sprintf("%s only asks a daemon for a container: the container is in another control group and has "+
			"no NOTIFY_SOCKET, so nobody says READY=1",
			p),
		Change: "run it below sdtrace relay with a runtime that takes NOTIFY_SOCKET along (podman " +
			"--sdnotify=container), or set Type=exec",
	}
}
