// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Initramfs writes a cpio archive in the "newc" form that the kernel unpacks
// as its first root file system (Documentation/driver-api/early-userspace/
// buffer-format.rst). Parent directories are made as needed. The first error
// of any write sticks and is returned by every later call.
type Initramfs struct {
	w     io.Writer
	inode int
	dirs  map[string]bool
	err   error
}

// NewInitramfs returns an archive that already holds /dev/console, without
// which the kernel starts init with no standard streams.
func NewInitramfs(w io.Writer) *Initramfs {
	a := &Initramfs{w: w, dirs: map[string]bool{".": true, "/": true}}
	a.mkdir("dev")
	a.entry("dev/console", 0o020600, 5, 1, nil)
	return a
}

// Add writes a regular file with the given permission bits.
func (a *Initramfs) Add(name string, mode fs.FileMode, data []byte) error {
	name = strings.TrimPrefix(path.Clean(name), "/")
	a.mkdir(path.Dir(name))
	a.entry(name, 0o100000|uint32(mode.Perm()), 0, 0, data)
	return a.err
}

// AddTree writes the regular files below dir on this machine under name.
// Anything else than files and directories is refused.
func (a *Initramfs) AddTree(name, dir string) error {
	return filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("packing %s: neither file nor directory", file)
		}
		inside, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		return a.addFile(path.Join(name, filepath.ToSlash(inside)), file, d)
	})
}

// addFile writes a file of this machine.
func (a *Initramfs) addFile(name, file string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return a.Add(name, info.Mode(), data)
}

// AddRoot writes the files, directories and symbolic links below dir on this
// machine as the root file system, owned by root, but not those of which leaveOut
// says so; it is asked with the path below dir. Anything else is refused.
func (a *Initramfs) AddRoot(dir string, leaveOut func(name string) bool) error {
	return filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil || name == "." {
			return err
		}
		switch {
		case leaveOut(name) && d.IsDir():
			return filepath.SkipDir
		case leaveOut(name):
			return nil
		case d.IsDir():
			return a.Mkdir(name)
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(file)
			if err != nil {
				return err
			}
			return a.Symlink(name, target)
		case !d.Type().IsRegular():
			return fmt.Errorf("packing %s: neither file, directory nor link", file)
		}
		return a.addFile(name, file, d)
	})
}

// Symlink writes a symbolic link to target.
func (a *Initramfs) Symlink(name, target string) error {
	name = strings.TrimPrefix(path.Clean(name), "/")
	a.mkdir(path.Dir(name))
	a.entry(name, 0o120777, 0, 0, []byte(target))
	return a.err
}

// Mkdir makes a directory and its parents.
func (a *Initramfs) Mkdir(name string) error {
	a.mkdir(strings.TrimPrefix(path.Clean(name), "/"))
	return a.err
}

// Close ends the archive. It does not close the writer.
func (a *Initramfs) Close() error {
	a.entry("TRAILER!!!", 0, 0, 0, nil)
	return a.err
}

func (a *Initramfs) mkdir(name string) {
	if a.dirs[name] {
		return
	}
	a.mkdir(path.Dir(name))
	a.dirs[name] = true
	a.entry(name, 0o040755, 0, 0, nil)
}

func (a *Initramfs) entry(name string, mode uint32, major, minor int, data []byte) {
	if a.err != nil {
		return
	}
	a.inode++
	var b bytes.Buffer
	// magic, then ino mode uid gid nlink mtime filesize devmajor devminor
	// rdevmajor rdevminor namesize check
	fmt.Fprintf(&b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		a.inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name)
	pad(&b, b.Len())
	b.Write(data)
	pad(&b, len(data))
	_, a.err = a.w.Write(b.Bytes())
}

// pad fills up to the multiple of four that header and data each end on.
func pad(b *bytes.Buffer, n int) { b.Write(make([]byte, -n&3)) }
