// SPDX-License-Identifier: Apache-2.0

package tracer

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/bpf"
	"github.com/sdtrace/sdtrace/internal/glob"
)

// cgroupMount is a mounted cgroup hierarchy.
type cgroupMount struct {
	point       string
	root        string   // the cgroup that point shows, "/" for the whole
	v2          bool     // else v1
	controllers []string // of v1
}

// cgroupMounts lists the hierarchies mounted here (proc_pid_mountinfo(5)).
func cgroupMounts() ([]cgroupMount, error) {
	all, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("finding the cgroup hierarchies: %w", err)
	}
	var mounts []cgroupMount
	for _, m := range all {
		mount := cgroupMount{root: m.Root, point: m.Mountpoint, v2: m.FSType == "cgroup2"}
		if !mount.v2 {
			mount.controllers = strings.Split(m.VFSOptions, ",")
		}
		mounts = append(mounts, mount)
	}
	return mounts, nil
}

// hierarchies are where this machine's cgroups are found.
type hierarchies struct {
	mounts []cgroupMount
	// The names of cgroup_subsys_id by their number, which the kernel's configuration
	// decides; nil where nothing tells.
	controllers []string
}

func findHierarchies(types *btf.Cache) (*hierarchies, error) {
	mounts, err := cgroupMounts()
	if err != nil {
		return nil, err
	}
	return &hierarchies{mounts: mounts, controllers: controllers(types)}, nil
}

func controllers(types *btf.Cache) []string {
	kernel, err := types.Kernel()
	if err != nil {
		return nil
	}
	var enum *btf.Enum
	if err := kernel.TypeByName("cgroup_subsys_id", &enum); err != nil {
		return nil
	}
	var names []string
	for _, v := range enum.Values {
		if name, ok := strings.CutSuffix(v.Name, "_cgrp_id"); ok && v.Value == uint64(len(names)) {
			names = append(names, name)
		}
	}
	return names
}

// v1 are the cgroup_subsys_ids of the v1 hierarchies worth asking where a process is
// when cgroup v2 says only "/", the best first; none on a host without cgroup v1.
func (h *hierarchies) v1() []uint8 {
	var ids []uint8
	for _, name := range []string{"pids", "memory", "devices", "cpu", "cpuacct", "freezer", "blkio", "cpuset"} {
		mounted := slices.ContainsFunc(h.mounts, func(m cgroupMount) bool {
			return slices.Contains(m.controllers, name)
		})
		if i := h.subsystem(name); mounted && i >= 0 {
			ids = append(ids, uint8(i))
		}
	}
	return ids
}

// subsystem is the cgroup_subsys_id of a v1 controller, -1 for what is none.
func (h *hierarchies) subsystem(controller string) int {
	if controller == "blkio" {
		controller = "io"
	}
	return slices.Index(h.controllers, controller)
}

// find finds the cgroup that a user means by path: a directory of a cgroup
// file system or, where there is none, a path below the root of cgroup v2 or else
// of a v1 controller.
func (h *hierarchies) find(path string) (bpf.FentryCgroupTarget, error) {
	candidates := []string{path}
	for _, m := range h.mounts {
		if strings.HasPrefix(path, "/") && m.root == "/" {
			candidates = append(candidates, filepath.Join(m.point, path))
		}
	}
	// Version 2 comes first, whatever the order of the mounts.
	slices.SortStableFunc(candidates[1:], func(a, b string) int {
		return magicRank(a) - magicRank(b)
	})
	var named error
	for _, dir := range candidates {
		target, err := h.at(dir)
		if err == nil {
			return target, nil
		}
		if errors.Is(err, errNamedHierarchy) {
			named = err
		}
	}
	if named != nil {
		return bpf.FentryCgroupTarget{}, badOption("Cgroups", "%s", named)
	}
	return bpf.FentryCgroupTarget{}, badOption("Cgroups", "no cgroup %q: want a directory below %s or a path within it",
		path, mountPoints(h.mounts))
}

func mountPoints(mounts []cgroupMount) string {
	for _, m := range mounts {
		if m.v2 {
			return m.point
		}
	}
	return "/sys/fs/cgroup"
}

func magicRank(dir string) int {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return 0
	}
	return 1
}

var errNamedHierarchy = errors.New("a hierarchy without controllers: use the path of a controller such as pids or memory")

// at identifies a directory of a cgroup file system.
func (h *hierarchies) at(dir string) (bpf.FentryCgroupTarget, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return bpf.FentryCgroupTarget{}, err
	}
	var fsStat unix.Statfs_t
	var stat unix.Stat_t
	if err := errors.Join(unix.Statfs(dir, &fsStat), unix.Stat(dir, &stat)); err != nil {
		return bpf.FentryCgroupTarget{}, err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return bpf.FentryCgroupTarget{}, fs.ErrInvalid
	}
	// kernfs_node.id is the inode number on 64-bit kernels.
	target := bpf.FentryCgroupTarget{Id: stat.Ino}
	switch fsStat.Type {
	case unix.CGROUP2_SUPER_MAGIC:
		return target, nil
	case unix.CGROUP_SUPER_MAGIC:
	default:
		return bpf.FentryCgroupTarget{}, fs.ErrNotExist
	}
	for _, m := range h.mounts {
		if dir != m.point && !strings.HasPrefix(dir, m.point+"/") {
			continue
		}
		for _, controller := range m.controllers {
			if i := h.subsystem(controller); i >= 0 {
				target.Hierarchy = uint64(i) + 1
				return target, nil
			}
		}
	}
	return bpf.FentryCgroupTarget{}, fmt.Errorf("cgroup %q: %w", dir, errNamedHierarchy)
}

// HasCgroup reports whether a cgroup of any hierarchy has a name that one of the
// globs matches.
func HasCgroup(globs []string) bool {
	mounts, err := cgroupMounts()
	if err != nil {
		return false
	}
	for _, m := range mounts {
		found := false
		_ = filepath.WalkDir(m.point, func(_ string, d fs.DirEntry, err error) error {
			// An error means that the cgroup was removed meanwhile.
			if err == nil && d.IsDir() && glob.MatchAny(globs, d.Name()) {
				found = true
				return fs.SkipAll
			}
			return nil
		})
		if found {
			return true
		}
	}
	return false
}
