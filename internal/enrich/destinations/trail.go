// SPDX-License-Identifier: Apache-2.0

package destinations

import (
	"errors"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A path that leads to a file now may have led to another one a moment ago. What tells is
// the change time: giving a file a name (bind(2), link(2), rename(2)) sets that of the
// directory and, on most file systems, that of the file.

// errUnproven means that a path leads somewhere, but since when cannot be told.
var errUnproven = errors.New("cannot tell since when the path leads there")

const (
	maxLinks = 40  // as many symbolic links as the kernel follows (MAXSYMLINKS)
	maxNames = 256 // as many names as are looked at
	rootLink = "/" // what /proc/PID/root says of the top of a mount namespace
)

// trail is a path on the way from a root directory.
type trail struct {
	root    unix.Statx_t
	at      int // an open file: where the trail has come to
	stat    unix.Statx_t
	renames bool // whether renaming a file is known to change the file's own time here
	changed time.Time
	links   int
	names   int
}

// follow goes along an absolute path from a root directory, and returns the file at its
// end as O_PATH. changed is the time of the last change that may have made the path lead
// there, by the wall clock. Mounts are not among these changes, as they have no time.
func follow(root int, path string) (fd int, stat unix.Statx_t, changed time.Time, err error) {
	t := trail{at: -1}
	defer func() {
		if err != nil && t.at >= 0 {
			unix.Close(t.at)
		}
	}()
	if t.root, err = statOf(root); err != nil {
		return -1, stat, changed, err
	}
	if err := t.restart(root); err != nil {
		return -1, stat, changed, err
	}
	if err := t.along(root, path); err != nil {
		return -1, stat, changed, err
	}
	return t.at, t.stat, t.changed, nil
}

// statOf describes an open file.
func statOf(fd int) (stat unix.Statx_t, err error) {
	err = unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &stat)
	if err == nil && stat.Mask&unix.STATX_MNT_ID == 0 {
		err = errUnproven
	}
	return stat, err
}

func changeTime(stat *unix.Statx_t) time.Time {
	return time.Unix(stat.Ctime.Sec, int64(stat.Ctime.Nsec))
}

func sameFile(a, b *unix.Statx_t) bool {
	return a.Mnt_id == b.Mnt_id && a.Dev_major == b.Dev_major && a.Dev_minor == b.Dev_minor && a.Ino == b.Ino
}

// restart goes to the root directory.
func (t *trail) restart(root int) error {
	fd, err := unix.FcntlInt(uintptr(root), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return t.enter(fd, t.root)
}

// enter takes over an open file as the place where the trail has come to.
func (t *trail) enter(fd int, stat unix.Statx_t) error {
	if t.at < 0 || t.stat.Mnt_id != stat.Mnt_id {
		renames, known := keepsTimes(fd)
		if !known {
			unix.Close(fd)
			return errUnproven
		}
		t.renames = renames
	}
	if t.at >= 0 {
		unix.Close(t.at)
	}
	t.at, t.stat = fd, stat
	return nil
}

// keepsTimes reports whether the file system of a file is one that sets the change time of
// a directory with its entries by this machine's clock, and whether it sets that of a
// renamed file, too, also with RENAME_EXCHANGE (kernel: ext4_cross_rename, shmem_rename2,
// btrfs_rename_exchange do; xfs_cross_rename does not, and overlayfs may lie over it).
func keepsTimes(fd int) (renames, known bool) {
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil {
		return false, false
	}
	switch uint32(fs.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.BTRFS_SUPER_MAGIC:
		return true, true
	case unix.XFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.RAMFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC:
		return false, true
	}
	return false, false
}

// along goes along the names of a path.
func (t *trail) along(root int, path string) error {
	if strings.HasPrefix(path, "/") {
		if err := t.restart(root); err != nil {
			return err
		}
	}
	for name := range strings.SplitSeq(path, "/") {
		if t.names++; t.names > maxNames {
			return unix.ELOOP
		}
		var err error
		switch name {
		case "", ".":
			if t.stat.Mode&unix.S_IFMT != unix.S_IFDIR {
				err = unix.ENOTDIR
			}
		case "..":
			err = t.up()
		default:
			err = t.down(root, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// up goes to the parent directory, which for the root is itself.
func (t *trail) up() error {
	if sameFile(&t.stat, &t.root) {
		return nil
	}
	fd, err := unix.Openat(t.at, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	// Asked after the way was taken, so that no change before it is missed. A directory
	// that gets another parent was renamed.
	from, err := statOf(t.at)
	if err == nil {
		t.note(changeTime(&from))
		var stat unix.Statx_t
		if stat, err = statOf(fd); err == nil {
			return t.enter(fd, stat)
		}
	}
	unix.Close(fd)
	return err
}

// down goes to the file of a name in the directory, and on if that is a symbolic link.
func (t *trail) down(root int, name string) error {
	fd, err := unix.Openat(t.at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	stat, err := statOf(fd)
	if err != nil {
		unix.Close(fd)
		return err
	}
	// Asked after the file was opened, so that no change before that is missed.
	dir, err := statOf(t.at)
	if err != nil {
		unix.Close(fd)
		return err
	}
	if stat.Mnt_id == dir.Mnt_id {
		changed := changeTime(&dir)
		// Its directory changes with any other name in it.
		if own := changeTime(&stat); t.renames && own.Before(changed) {
			changed = own
		}
		t.note(changed)
	}
	// What is mounted on a name stays there: the name cannot be taken away (EBUSY).
	if stat.Mode&unix.S_IFMT != unix.S_IFLNK {
		return t.enter(fd, stat)
	}
	// A link's text is given with its name, but those of procfs mean something else to
	// everybody who reads them.
	defer unix.Close(fd)
	if _, known := keepsTimes(fd); !known {
		return errUnproven
	}
	if t.links++; t.links > maxLinks {
		return unix.ELOOP
	}
	var text [unix.PathMax]byte
	n, err := unix.Readlinkat(fd, "", text[:])
	if err != nil {
		return err
	}
	return t.along(root, string(text[:n]))
}

func (t *trail) note(changed time.Time) {
	if changed.After(t.changed) {
		t.changed = changed
	}
}
