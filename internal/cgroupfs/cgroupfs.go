// SPDX-License-Identifier: Apache-2.0

// Package cgroupfs finds control groups of version 2 in the file system.
package cgroupfs

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Mount is where the whole hierarchy is mounted, "" if it is not.
var Mount = sync.OnceValue(func() string {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2"))
	if err != nil {
		return ""
	}
	for _, m := range mounts {
		if m.Root == "/" {
			return m.Mountpoint
		}
	}
	return ""
})

// Dir is the directory of a control group, given its path below the root of the hierarchy.
func Dir(cgroup string) string { return filepath.Join(Mount(), cgroup) }

// Exists reports whether there is such a control group.
func Exists(cgroup string) bool {
	return Mount() != "" && unix.Access(Dir(cgroup), unix.F_OK) == nil
}

// Named returns the control groups with a name, of the first most that are looked at.
func Named(name string, most int) (found []string) {
	if Mount() == "" {
		return nil
	}
	_ = filepath.WalkDir(Mount(), func(dir string, d fs.DirEntry, err error) error {
		switch {
		case err != nil: // it is gone
			return fs.SkipDir
		case !d.IsDir():
			return nil
		case most == 0:
			return fs.SkipAll
		case d.Name() == name:
			found = append(found, strings.TrimPrefix(dir, Mount()))
		}
		most--
		return nil
	})
	return found
}

// Processes lists the processes of a control group, those below it left out. The error is
// ENOENT when there is no such group.
func Processes(cgroup string) ([]int, error) {
	if Mount() == "" {
		return nil, unix.ENOENT
	}
	list, err := os.ReadFile(Dir(cgroup) + "/cgroup.procs")
	if err != nil {
		return nil, err
	}
	var pids []int
	for line := range strings.FieldsSeq(string(list)) {
		// 0 is one that this pid namespace does not see.
		if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// ProcessesBelow lists the processes of a control group and of those below it, most at most. None is what there is
// for a group that is not there.
func ProcessesBelow(cgroup string, most int) (pids []int) {
	if Mount() == "" {
		return nil
	}
	_ = filepath.WalkDir(Dir(cgroup), func(dir string, d fs.DirEntry, err error) error {
		switch {
		case err != nil: // it is gone
			return fs.SkipDir
		case !d.IsDir():
			return nil
		case len(pids) >= most:
			return fs.SkipAll
		}
		some, _ := Processes(strings.TrimPrefix(dir, Mount())) // a group of threads has none
		pids = append(pids, some[:min(len(some), most-len(pids))]...)
		return nil
	})
	return pids
}

// handleType is the type of a file handle that is a kernfs_node's id (kernel: FILEID_KERNFS).
const handleType = 0xfe

// PathOf is the path of the control group with an id, "" if it is gone, or cannot be found. nearest is the path of the
// nearest one above that has a path which can be told: one can be nested so deep that its own is too long (PATH_MAX).
func PathOf(id uint64) (path, nearest string) {
	mount, err := unix.Open(Mount(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", ""
	}
	defer unix.Close(mount)
	handle := unix.NewFileHandle(handleType, binary.NativeEndian.AppendUint64(nil, id))
	fd, err := unix.OpenByHandleAt(mount, handle, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return "", ""
	}
	defer func() { unix.Close(fd) }()
	path, err = pathOf(fd)
	nearest = path
	// A look takes a microsecond or two.
	const deepest = 4096
	for range deepest {
		if !errors.Is(err, unix.ENAMETOOLONG) {
			break
		}
		above, e := unix.Openat(fd, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if e != nil {
			return "", ""
		}
		unix.Close(fd)
		fd = above
		nearest, err = pathOf(fd)
	}
	return path, nearest
}

// pathOf is the path of an open control group. The error is that of readlink(2).
func pathOf(fd int) (string, error) {
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return "", err
	}
	below, ok := strings.CutPrefix(path, Mount())
	switch {
	case !ok:
		return "", nil
	case below == "":
		return "/", nil
	}
	return below, nil
}
