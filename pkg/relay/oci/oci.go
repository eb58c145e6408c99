// SPDX-License-Identifier: Apache-2.0

// Package oci lets the process of an OCI container reach the socket of a relay.
package oci

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sdtrace/sdtrace/pkg/relay"
)

// DefaultDestination is where the directory is mounted in a container unless
// [SpecOptions] say otherwise. runc and podman use the same.
const DefaultDestination = "/run/notify"

// sunPathMax is the longest path in a struct sockaddr_un, in bytes (unix(7)).
const sunPathMax = 107

// SpecOptions are what [SetupSpec] puts into a container.
type SpecOptions struct {
	// Directory is the absolute path, on the host, of the directory that holds the
	// relay's socket under the name [relay.SocketName].
	Directory string
	// Destination is where the directory is mounted inside of the container, ""
	// for [DefaultDestination].
	Destination string
	// WatchdogUSec is within how many microseconds the container has to ping, as
	// WATCHDOG_USEC holds it (sd_watchdog_enabled(3)); "" for no watchdog.
	WatchdogUSec string
}

// SetupSpec lets the process of an OCI container reach the relay's socket: it
// adds a read-only bind mount of the directory, after all other mounts, since
// one of /run would hide it, and the variables NOTIFY_SOCKET and, for a watchdog,
// WATCHDOG_USEC. WATCHDOG_PID is 1 in a container with a pid namespace of its own
// and left out in any other, which lets every process ping. The directory is
// mounted, not the socket, so that a relay that is started again can bind anew.
//
// Former values of these variables and a former mount at the same place are
// replaced: to call it again changes nothing. It is an error, and spec is left as
// it was, when spec has no process, a path is not absolute, another mount lies
// below the destination, the socket's path is too long for a socket address
// (unix(7)), or the watchdog is no positive number.
func SetupSpec(spec *specs.Spec, opts SpecOptions) error {
	if spec == nil || spec.Process == nil {
		return errors.New("setting up an OCI container: it has no process")
	}
	destination := opts.Destination
	if destination == "" {
		destination = DefaultDestination
	}
	destination = path.Clean(destination)
	socket := path.Join(destination, relay.SocketName)
	switch {
	case !filepath.IsAbs(opts.Directory):
		return fmt.Errorf("setting up an OCI container: directory %q is not an absolute path", opts.Directory)
	case !path.IsAbs(destination):
		return fmt.Errorf("setting up an OCI container: destination %q is not an absolute path", destination)
	case destination == "/":
		return errors.New("setting up an OCI container: destination / would replace its root")
	case len(socket) > sunPathMax:
		return fmt.Errorf("setting up an OCI container: %s has %d bytes, a socket address holds %d", socket, len(socket), sunPathMax)
	}
	if opts.WatchdogUSec != "" {
		if usec, err := strconv.ParseUint(opts.WatchdogUSec, 10, 64); err != nil || usec == 0 {
			return fmt.Errorf("setting up an OCI container: watchdog %q is not a number of microseconds", opts.WatchdogUSec)
		}
	}

	// New slices: the old ones may be shared with other specs.
	var mounts []specs.Mount
	for _, m := range spec.Mounts {
		// The runtime reads a relative destination from the root (config.md).
		at := path.Join("/", m.Destination)
		if strings.HasPrefix(at, destination+"/") {
			return fmt.Errorf("setting up an OCI container: mount at %s lies below %s", m.Destination, destination)
		}
		if at != destination {
			mounts = append(mounts, m)
		}
	}
	spec.Mounts = append(mounts, specs.Mount{
		Destination: destination,
		Type:        "bind",
		Source:      filepath.Clean(opts.Directory),
		Options:     []string{"bind", "rprivate", "ro", "nosuid", "nodev", "noexec"},
	})

	env := slices.DeleteFunc(slices.Clone(spec.Process.Env), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return name == "NOTIFY_SOCKET" || name == "WATCHDOG_USEC" || name == "WATCHDOG_PID"
	})
	env = append(env, "NOTIFY_SOCKET="+socket)
	if opts.WatchdogUSec != "" {
		env = append(env, "WATCHDOG_USEC="+opts.WatchdogUSec)
		if ownPIDNamespace(spec) {
			env = append(env, "WATCHDOG_PID=1")
		}
	}
	spec.Process.Env = env
	return nil
}

// ownPIDNamespace reports whether the runtime makes a pid namespace for the
// container, instead of putting it into one that is there (config-linux.md).
func ownPIDNamespace(spec *specs.Spec) bool {
	return spec.Linux != nil && slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.PIDNamespace && n.Path == ""
	})
}
