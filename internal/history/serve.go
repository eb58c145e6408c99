// SPDX-License-Identifier: Apache-2.0

//go:build linux

package history

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/capture"
	"github.com/sdtrace/sdtrace/pkg/events"
)

// Dir is where running captures are asked: each has a stream socket there, for its own user alone.
const Dir = "/run/sdtrace"

// patience is how long a reader has for all of an answer.
const patience = 5 * time.Second

// Serve tells who asks what the recorder holds, at a socket in a directory, until stop is called. Sockets that captures
// have left behind which did not end well are removed.
func (r *Recorder) Serve(dir string) (stop func(), err error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	sweep(dir)
	// Another pid namespace may have the same directory, and this process id.
	path := filepath.Join(dir, fmt.Sprintf("%d-%x", r.about.PID, time.Now().UnixNano()))
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			// One after the other: who does not read in time gets no more.
			_ = conn.SetDeadline(time.Now().Add(patience))
			_ = r.answer(conn)
			_ = conn.Close()
		}
	}()
	return func() { _ = listener.Close() }, nil // which removes the file
}

// makeDir makes a directory that is this user's alone. The error says whose it is if it is another's.
func makeDir(dir string) error {
	const mode = 0o700
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return isOwn(dir)
}

// isOwn reports whether nobody else can put a socket into a directory.
func isOwn(dir string) error {
	var stat unix.Stat_t
	if err := unix.Lstat(dir, &stat); err != nil {
		return &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR || int(stat.Uid) != os.Geteuid() || stat.Mode&0o022 != 0 {
		return fmt.Errorf("%s is not this user's own directory", dir)
	}
	return nil
}

// sweep removes the sockets of which nobody listens at any more.
func sweep(dir string) {
	for _, path := range sockets(dir) {
		conn, err := net.Dial("unix", path)
		switch {
		case err == nil:
			_ = conn.Close()
		case errors.Is(err, unix.ECONNREFUSED):
			_ = os.Remove(path)
		}
	}
}

func sockets(dir string) (paths []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if e.Type() == os.ModeSocket {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths
}

// questionMax is how long a question can be, in bytes.
const questionMax = 1 << 16

// answer reads what is asked for, and writes a line about the capture and then what is held about that.
func (r *Recorder) answer(conn io.ReadWriter) error {
	question, err := bufio.NewReader(io.LimitReader(conn, questionMax)).ReadBytes('\n')
	if err != nil {
		return err
	}
	var texts []string
	if err := json.Unmarshal(question, &texts); err != nil {
		return err
	}
	about, lines := r.lines(texts)
	head, err := json.Marshal(about)
	if err != nil {
		return err
	}
	_, err = conn.Write(append(append(head, '\n'), lines...))
	return err
}

// Told is what a capture has told.
type Told struct {
	About
	// File is the name of the file that it was read from instead, "" for none.
	File string

	Records []events.Record
}

// read reads records.
func read(in io.Reader) (all []events.Record, err error) {
	records, err := capture.Read(context.Background(), in, capture.Match{})
	if err != nil {
		return nil, err
	}
	for record, err := range records.All() {
		if err != nil {
			return all, err
		}
		all = append(all, record.Clone())
	}
	return all, nil
}

// Ask asks all captures that have a socket in a directory, at the same time, until the context ends, for what they
// hold about something: a datagram with what became of it, or what else was told, in the JSON of which one of some
// texts stands. They come in the order in which they began. Those that do not answer are left out; that there is none is no
// error.
func Ask(ctx context.Context, dir string, texts ...string) []Told {
	if isOwn(dir) != nil {
		return nil
	}
	var mu sync.Mutex
	var all []Told
	var group sync.WaitGroup
	for _, path := range sockets(dir) {
		group.Go(func() {
			told, err := ask(ctx, path, texts)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, told)
		})
	}
	group.Wait()
	slices.SortFunc(all, func(a, b Told) int { return cmp.Or(a.Began.Compare(b.Began), cmp.Compare(a.PID, b.PID)) })
	return all
}

// Told is what the recorder itself would tell about something: see [Ask].
func (r *Recorder) Told(texts ...string) Told {
	about, lines := r.lines(texts)
	records, _ := read(bytes.NewReader(lines)) // which were written here
	return Told{About: about, Records: records}
}

// ReadFile returns what a file holds that sdtrace -o json has written. The errors are those of [capture.OpenFile] and
// of what is no capture.
func ReadFile(ctx context.Context, name string) (Told, error) {
	file, err := capture.OpenFile(ctx, name, capture.Match{})
	if err != nil {
		return Told{}, err
	}
	defer func() { _ = file.Close() }()
	told := Told{File: name}
	for record, err := range file.All() {
		if err != nil {
			return told, err
		}
		if told.Began.IsZero() {
			told.Began = record.Time()
		}
		if record.Lost != nil {
			told.Lost += record.Lost.Count()
		}
		told.Records = append(told.Records, record.Clone())
	}
	return told, nil
}

// Name is what the capture is called.
func (t *Told) Name() string {
	switch t.PID {
	case 0:
		return t.File
	case os.Getpid():
		return "this capture"
	}
	return fmt.Sprintf("the capture of sdtrace[%d]", t.PID)
}

// answerMax is how long an answer can be, in bytes.
const answerMax = 4 * bytesMax

func ask(ctx context.Context, path string, texts []string) (told Told, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return told, err
	}
	defer conn.Close()
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	question, err := json.Marshal(texts)
	if err != nil {
		return told, err
	}
	if _, err := conn.Write(append(question, '\n')); err != nil {
		return told, err
	}
	in := bufio.NewReader(io.LimitReader(conn, answerMax))
	head, err := in.ReadBytes('\n')
	if err != nil {
		return told, err
	}
	if err := json.Unmarshal(head, &told.About); err != nil {
		return told, err
	}
	told.Records, err = read(in)
	return told, err
}
