// SPDX-License-Identifier: Apache-2.0

// Package proc reads what Linux says of processes in /proc (proc(5)), through a directory
// that is held open, so that all of it is about one process.
package proc

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// Tick is the unit of times in the file: USER_HZ is 100 on all architectures there are
// programs for.
const Tick = 10 * time.Millisecond

// Stat is the part of /proc/PID/stat that is read: what tells one process from another with
// the same number.
type Stat struct {
	// Comm is the name of the process, which may hold any byte.
	Comm string
	// State is 'Z' for a process that is over and was not waited for (proc_pid_stat(5)).
	State byte
	// PPID is the parent, 0 when it is not visible here.
	PPID int
	// StartTicks is when it was started, in [Tick] of CLOCK_BOOTTIME.
	StartTicks uint64
	// CPUTicks is the time of a processor that it has taken, in [Tick].
	CPUTicks uint64
	// IsKernel is set for a kernel thread (kernel: PF_KTHREAD), which has no files and no environment.
	IsKernel bool
}

// ParseStat reads the content of the file; ok is false if it is not like one.
func ParseStat(content []byte) (stat Stat, ok bool) {
	// "pid (comm) state …", where comm may hold anything; starttime is the 22nd.
	open, end := bytes.IndexByte(content, '('), bytes.LastIndexByte(content, ')')
	if open < 0 || end < open {
		return Stat{}, false
	}
	fields := strings.Fields(string(content[end+1:]))
	const parent, flags, userTime, systemTime, startTime = 4 - 3, 9 - 3, 14 - 3, 15 - 3, 22 - 3
	if len(fields) <= startTime {
		return Stat{}, false
	}
	ticks, err := strconv.ParseUint(fields[startTime], 10, 64)
	if err != nil {
		return Stat{}, false
	}
	const kernelThread = 0x00200000
	bits, err := strconv.ParseUint(fields[flags], 10, 64)
	if err != nil {
		return Stat{}, false
	}
	ppid, err := strconv.Atoi(fields[parent])
	if err != nil {
		return Stat{}, false
	}
	stat = Stat{
		Comm: string(content[open+1 : end]), State: fields[0][0], PPID: ppid, StartTicks: ticks, IsKernel: bits&kernelThread != 0,
	}
	for _, field := range []int{userTime, systemTime} {
		taken, err := strconv.ParseUint(fields[field], 10, 64)
		if err != nil {
			return Stat{}, false
		}
		stat.CPUTicks += taken
	}
	return stat, true
}

// StartedAt reports whether the process was started at that time, in nanoseconds of
// CLOCK_BOOTTIME.
func (s Stat) StartedAt(ns uint64) bool { return s.StartTicks == ns/uint64(Tick) }

// StartedBy reports whether the process was there at that time, in nanoseconds of CLOCK_BOOTTIME.
func (s Stat) StartedBy(ns uint64) bool { return s.StartTicks <= ns/uint64(Tick) }
