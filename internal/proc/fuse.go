// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// linksMax is how many symbolic links are followed (path_resolution(7)).
const linksMax = 40

// IsOnFUSE reports whether a path leads into a file system of another process (fuse(4)) for this one, without asking
// that: see [ErrFUSE].
func (p Process) IsOnFUSE(path string) bool {
	mounts, err := p.mounts()
	if err != nil || !slices.ContainsFunc(mounts, isFUSE) {
		return false
	}
	root, err := p.Open("root", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return false
	}
	defer unix.Close(root)
	at, rest := "/", strings.Split(path, "/")
	for links := 0; len(rest) > 0 && links <= linksMax; {
		name := rest[0]
		rest = rest[1:]
		next := filepath.Join(at, name)
		if covers(mounts, next) {
			return true
		}
		target, err := readLink(root, next)
		switch {
		case err != nil:
			return false // as for whoever goes there
		case target == "":
			at = next
			continue
		case target[0] == '/':
			at = "/"
		}
		links++
		rest = append(strings.Split(target, "/"), rest...)
	}
	return false
}

// mounts are those that the process sees (proc_pid_mountinfo(5)).
func (p Process) mounts() ([]*mountinfo.Info, error) {
	text, err := p.read("mountinfo")
	if err != nil {
		return nil, err
	}
	return mountinfo.GetMountsFromReader(bytes.NewReader(text), nil)
}

func isFUSE(m *mountinfo.Info) bool { return strings.HasPrefix(m.FSType, "fuse") }

// covers reports whether the mount in which a path without links lies is of the kind fuse(4).
func covers(mounts []*mountinfo.Info, path string) bool {
	var at *mountinfo.Info
	for _, m := range mounts {
		isBelow := m.Mountpoint == "/" || path == m.Mountpoint || strings.HasPrefix(path, m.Mountpoint+"/")
		if isBelow && (at == nil || len(m.Mountpoint) >= len(at.Mountpoint)) {
			at = m // the last one of several lies on top
		}
	}
	return at != nil && isFUSE(at)
}

// readLink is what is in a link at the end of a path without links, "" if it is none.
func readLink(root int, path string) (string, error) {
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var link [unix.PathMax]byte
	n, err := unix.Readlinkat(fd, "", link[:])
	if err != nil {
		return "", nil //nolint:nilerr // it is none
	}
	return string(link[:n]), nil
}
