// SPDX-License-Identifier: Apache-2.0

package names

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/field"
	"github.com/sdtrace/sdtrace/internal/identity"
	"github.com/sdtrace/sdtrace/internal/proc"
)

// process is one of a runtime's, which knows where that keeps its state or what a
// container is called.
type process struct {
	pid string
	// comm is one of field.Monitors.
	comm string
	args []string
	// uid is the real user: the one who chose the arguments, also of a set-user-ID program.
	uid uint32
	// container is the id of the one that the process is in itself, or "".
	container string
	// started tells it from a later process of the same number.
	started uint64 // ticks, 0 for one that is gone
}

// knows reports whether a process can tell the name of a container, and is believed.
func (p process) knows(c Key) bool {
	return (c.Runtime == "" || slices.Contains(field.Monitors[p.comm], c.Runtime)) && c.believes(p.uid) &&
		(p.container == "" || c.isInside(p.container))
}

// option is the value of the first of the arguments with one of these names; after
// it may come what a user chose.
func (p process) option(names ...string) string {
	for i, arg := range p.args {
		name, value, joined := strings.Cut(arg, "=")
		switch {
		case !slices.Contains(names, name):
		case joined:
			return value
		case i+1 < len(p.args):
			return p.args[i+1]
		}
	}
	return ""
}

// processes finds runtimes' processes.
type processes struct {
	root string

	mu    sync.Mutex
	found []process
	began time.Time
	rest  time.Time // nothing is looked at again before
}

// since returns those that run now or, if a look at all processes began after asked
// or ended just now, those that ran then: at most a tenth of the time is spent looking.
func (l *processes) since(ctx context.Context, asked time.Time) []process {
	l.mu.Lock()
	defer l.mu.Unlock()
	began := time.Now()
	if !l.began.Before(asked) || began.Before(l.rest) {
		return l.found
	}
	found := l.look(ctx)
	if ctx.Err() == nil {
		l.found, l.began = found, began
	}
	ended := time.Now()
	l.rest = ended.Add(9 * ended.Sub(began))
	return found
}

func (l *processes) look(ctx context.Context) []process {
	pids, err := proc.PIDs(l.root)
	if err != nil {
		return nil
	}
	var found []process
	for _, pid := range pids {
		if ctx.Err() != nil {
			break
		}
		name := strconv.Itoa(pid)
		comm, err := l.read(name, "comm")
		if err != nil || field.Monitors[string(bytes.TrimSuffix(comm, []byte{'\n'}))] == nil {
			continue
		}
		if p, ok := l.describe(name); ok {
			found = append(found, p)
		}
	}
	return found
}

// open opens the directory of a process.
func (l *processes) open(pid string) (proc.Process, error) {
	fd, err := unix.Open(filepath.Join(l.root, "proc", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	number, _ := strconv.Atoi(pid)
	return proc.Process{PID: number, FD: fd}, err
}

func (l *processes) read(pid, name string) ([]byte, error) {
	p, err := l.open(pid)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return p.Read(name)
}

func (l *processes) describe(pid string) (process, bool) {
	stat := l.stat(pid)
	p := process{pid: pid, comm: stat.Comm, started: stat.StartTicks}
	if field.Monitors[p.comm] == nil {
		return process{}, false
	}
	cmdline, err := l.read(pid, "cmdline")
	if err != nil {
		return process{}, false
	}
	for arg := range strings.SplitSeq(strings.TrimSuffix(string(cmdline), "\x00"), "\x00") {
		p.args = append(p.args, arg)
	}
	status, err := l.read(pid, "status")
	if err != nil {
		return process{}, false
	}
	parsed, err := proc.ParseStatus(status)
	if err != nil {
		return process{}, false
	}
	p.uid = parsed.UID
	cgroups, err := l.read(pid, "cgroup")
	if err != nil {
		return process{}, false
	}
	for _, c := range proc.ParseCgroups(cgroups) {
		if container := identity.Parse(c.Path).Container; container != nil && container.ID != "" {
			p.container = container.ID
			break
		}
	}
	return p, l.lives(p)
}

// stat is the process's /proc/PID/stat; the zero value is that of one that is gone.
func (l *processes) stat(pid string) proc.Stat {
	content, err := l.read(pid, "stat")
	if err != nil {
		return proc.Stat{}
	}
	stat, _ := proc.ParseStat(content)
	return stat
}

// lives reports whether the process is still the one that was found, so that what was
// read below its /proc/PID is its own.
func (l *processes) lives(p process) bool {
	started := l.stat(p.pid).StartTicks
	return started != 0 && started == p.started
}
