// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// processes are pidfds of those that --pid names: another one that gets the same number is none of them.
type processes []*os.File

// openProcesses holds processes. The error is that none of them exists.
func openProcesses(pids []uint32) (all processes, err error) {
	missing := 0
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(int(pid), 0)
		switch {
		case errors.Is(err, unix.ESRCH):
			missing++
			continue
		case errors.Is(err, unix.EINVAL):
			continue // it is no process id, which the capture says
		case err == nil:
			err = unix.SetNonblock(fd, true) // so that the runtime waits for it
		}
		if err != nil {
			all.close()
			return nil, fmt.Errorf("holding process %d: %w", pid, err)
		}
		all = append(all, os.NewFile(uintptr(fd), "pidfd"))
	}
	switch {
	case missing == 0 || len(all) > 0:
		return all, nil
	case len(pids) == 1:
		return nil, fmt.Errorf("process %d does not exist", pids[0])
	}
	return nil, fmt.Errorf("none of the processes %v exists", pids)
}

// awaitEnd calls ended once all of the processes have ended, unless there are none or the context ends before.
func (all processes) awaitEnd(ctx context.Context, ended func()) {
	if len(all) == 0 {
		return
	}
	for _, f := range all {
		if awaitEnd(ctx, f) != nil {
			return
		}
	}
	ended()
}

// awaitEnd waits until the process of a pidfd has ended: then it can be read (pidfd_open(2)).
func awaitEnd(ctx context.Context, pidfd *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = pidfd.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Read(func(fd uintptr) bool {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0
	})
}

func (all processes) close() {
	for _, f := range all {
		f.Close()
	}
}
