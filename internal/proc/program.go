// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
)

// interpreters run programs that are not mapped.
var interpreters = regexp.MustCompile(
	`^(python|perl|ruby|node|nodejs|php|java|lua|tclsh|guile|mono|dotnet|erl|beam|R$|Rscript|sh$|bash|dash|ash|zsh|ksh|mksh|busybox|deno|bun$|gawk|mawk|awk|qemu)`)

var errInterpreter = errors.New("the program is an interpreter's")

// Programs looks for texts in the programs of processes, and reads each file once.
type Programs struct {
	texts []string
	known map[file]bool
}

// file tells a file from another.
type file struct{ device, inode uint64 }

// NewPrograms returns what looks for these texts, of which none is longer than 64 bytes.
func NewPrograms(texts ...string) *Programs {
	return &Programs{texts: texts, known: make(map[file]bool)}
}

// Reading is what may be read of programs.
type Reading struct {
	// Bytes are left to be read.
	Bytes int
	// Until is when it ends at the latest, as a disk can hang.
	Until time.Time
}

// Know reports whether one of the texts stands in the program of a process, or in a library that it has loaded. It
// reads their files as far as it may, and takes that from what may be read. The error says that it does not know: the
// program is interpreted, all has been read that may be, the time is over, or a file cannot be read.
func (k *Programs) Know(p Process, may *Reading) (bool, error) {
	exe, err := p.Link("exe")
	if err != nil {
		return false, err
	}
	if interpreters.MatchString(path.Base(exe)) {
		return false, errInterpreter
	}
	files, err := Within(p, "maps", Process.files, nil)
	if err != nil {
		return false, err
	}
	for _, m := range files {
		if found, err := k.holds(p, m, may); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// holds reports whether a mapped file holds one of the texts.
func (k *Programs) holds(p Process, m mapped, may *Reading) (found bool, err error) {
	type opened struct {
		*os.File
		file
	}
	o, err := Within(p, m.path, func(p Process) (opened, error) {
		f, err := p.openMapped(m)
		if err != nil {
			return opened{}, err
		}
		var stat unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
			f.Close()
			return opened{}, err
		}
		return opened{f, file{stat.Dev, stat.Ino}}, nil
	}, func(o opened) { o.Close() })
	if err != nil {
		return false, err
	}
	defer o.Close()
	if found, known := k.known[o.file]; known {
		return found, nil
	}
	if found, err = k.read(p, m.path, o.File, may); err == nil {
		k.known[o.file] = found
	}
	return found, err
}

func (k *Programs) read(p Process, path string, f *os.File, may *Reading) (bool, error) {
	const size, overlap = 64 << 10, 64
	chunk := make([]byte, 0, overlap+size)
	for {
		if may.Bytes <= 0 || !time.Now().Before(may.Until) {
			return false, os.ErrDeadlineExceeded
		}
		next, err := Within(p, path, func(Process) ([]byte, error) {
			next := make([]byte, size)
			n, err := io.ReadFull(f, next)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = nil // less than asked for
			}
			return next[:n], err
		}, nil)
		may.Bytes -= len(next)
		chunk = append(chunk, next...)
		for _, text := range k.texts {
			if bytes.Contains(chunk, []byte(text)) {
				return true, nil
			}
		}
		if err != nil || len(next) < size {
			return false, err
		}
		chunk = append(chunk[:0], chunk[len(chunk)-overlap:]...)
	}
}
