// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHangs says that a look at a process has not come back, and was left behind; or that the process, or others of the
// same user in the same unit or container, have been left so before, and are not looked at any more.
var ErrHangs = errors.New("a look at it does not come back")

// ErrFUSE says that another process is to answer for a file (fuse(4)), which is not asked: one that does not answer holds
// whoever has asked, even if that is killed (kernel: request_wait_answer).
var ErrFUSE = errors.New("it lies in a file system of another process (FUSE), which is not asked")

const (
	// lookLimit is how long a look may take that a process can keep from coming back.
	lookLimit = time.Second
	// hangsOfOwner is how many looks are left behind in the processes of one owner, hangsMost in all: each is a
	// thread.
	hangsOfOwner, hangsMost = 3, 256
)

// A Hang is a look that was left behind: the memory of a process and the files below its root directory may be a
// file system's, or another process's (fuse(4), userfaultfd(2)), that does not answer.
type Hang struct {
	// PID and Comm are the process.
	PID  int
	Comm string
	// What was looked at.
	What string

	started uint64 // ticks
	owner   owner
}

// String is a sentence without a full stop.
func (h Hang) String() string {
	return fmt.Sprintf("%s[%d]: to look at its %s takes longer than %s", h.Comm, h.PID, h.What, lookLimit)
}

// owner is who stands behind a process: a user, in a unit or container.
type owner struct {
	uid uint32
	// group is the beginning of its control group: whoever may make groups of his own makes them below.
	group string
}

// hangs are the looks that have not come back.
var hangs struct {
	mu  sync.Mutex
	all []*Hang
	// givenUp is closed when no look is waited for any more.
	givenUp chan struct{}
	once    sync.Once
}

func init() { hangs.givenUp = make(chan struct{}) }

// Hangs returns the looks that have not come back until now, the first one first.
func Hangs() []Hang {
	hangs.mu.Lock()
	defer hangs.mu.Unlock()
	list := make([]Hang, len(hangs.all))
	for i, h := range hangs.all {
		list[i] = *h
	}
	return list
}

// GiveUp has all looks that are waited for return [ErrHangs], and all later ones: the program is to end.
func GiveUp() { hangs.once.Do(func() { close(hangs.givenUp) }) }

// Within looks at something of a process that may never answer, and returns what look returns: for a second, then
// the error is [ErrHangs]. look gets the process as its own, for it may go on when nobody waits any more, and must
// share nothing with others. What it returns then is dropped, by drop if that is not nil.
func Within[T any](p Process, what string, look func(Process) (T, error), drop func(T)) (T, error) {
	var none T
	if refused(p) {
		return none, ErrHangs
	}
	fd, err := unix.FcntlInt(uintptr(p.FD), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return none, err
	}
	type answer struct {
		value T
		err   error
	}
	answered := make(chan answer)
	left := make(chan struct{})
	h := &Hang{PID: p.PID, What: what}
	go func() {
		own := Process{PID: p.PID, FD: fd}
		value, err := look(own)
		own.Close()
		select {
		case answered <- answer{value, err}:
			return
		case <-left:
		}
		if err == nil && drop != nil {
			drop(value)
		}
		h.isOver()
	}()
	limit := time.NewTimer(lookLimit)
	defer limit.Stop()
	select {
	case a := <-answered:
		return a.value, a.err
	case <-limit.C:
		h.isLeft(p)
	case <-hangs.givenUp:
	}
	close(left)
	return none, ErrHangs
}

// WithinPath is [Within] for a look that goes to a path as the process sees it. The error is [ErrFUSE], and nothing
// is looked at, if the path leads into a file system of another process: who waits for that cannot be killed.
func WithinPath[T any](p Process, path string, look func(Process) (T, error), drop func(T)) (T, error) {
	return Within(p, path, func(p Process) (T, error) {
		if p.IsOnFUSE(path) {
			var none T
			return none, ErrFUSE
		}
		return look(p)
	}, drop)
}

// isLeft takes note that a look is left behind.
func (h *Hang) isLeft(p Process) {
	stat, _ := p.Stat() // this and what the owner is read of waits for nobody
	h.Comm, h.started, h.owner = stat.Comm, stat.StartTicks, ownerOf(p)
	hangs.mu.Lock()
	hangs.all = append(hangs.all, h)
	hangs.mu.Unlock()
}

// isOver takes note that a look has come back after all.
func (h *Hang) isOver() {
	hangs.mu.Lock()
	defer hangs.mu.Unlock()
	hangs.all = slices.DeleteFunc(hangs.all, func(other *Hang) bool { return other == h })
}

// refused reports whether a process is not looked at any more.
func refused(p Process) bool {
	select {
	case <-hangs.givenUp:
		return true
	default:
	}
	hangs.mu.Lock()
	defer hangs.mu.Unlock()
	if len(hangs.all) == 0 || len(hangs.all) >= hangsMost {
		return len(hangs.all) > 0
	}
	by, of := ownerOf(p), 0
	for _, h := range hangs.all {
		if h.PID == p.PID {
			if stat, err := p.Stat(); err != nil || stat.StartTicks == h.started {
				return true
			}
		}
		if h.owner == by {
			of++
		}
	}
	return of >= hangsOfOwner
}

// ownerOf is who stands behind a process.
func ownerOf(p Process) (o owner) {
	if status, err := p.Status(); err == nil {
		o.uid = status.UID
	}
	const components = 2 // such as /system.slice/web.service
	cgroup, _ := p.Cgroup()
	path := strings.SplitN(cgroup, "/", components+2)
	o.group = strings.Join(path[:min(len(path), components+1)], "/")
	return o
}
