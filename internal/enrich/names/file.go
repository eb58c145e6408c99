// SPDX-License-Identifier: Apache-2.0

package names

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// fileMax is the length of the longest file that is read, in bytes. containers/storage
// keeps one file for all containers, half a KiB each.
const fileMax = 16 << 20

var errNotBelieved = errors.New("belongs to another user")

// readFile reads a regular file as a process sees it whose root directory is root. It
// opens no other kind: that could wait, or do something. believes says whose files count.
func readFile(root, name string, believes func(uid uint32) bool) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join("/", name), Err: err}
	}
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	switch err := unix.Fstat(fd, &stat); {
	case err != nil:
		return fail(err)
	case stat.Mode&unix.S_IFMT != unix.S_IFREG:
		return fail(errors.New("is not a regular file"))
	case !believes(stat.Uid):
		return fail(errNotBelieved)
	}
	f, err := os.Open("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return fail(errors.Unwrap(err))
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, fileMax+1))
	if err == nil && len(content) > fileMax {
		err = fmt.Errorf("is longer than %d bytes", fileMax)
	}
	if err != nil {
		return fail(err)
	}
	return content, nil
}
