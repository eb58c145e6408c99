// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// groups are control groups with the names of containers, in one directory.
type groups struct {
	dir       string
	processes []*exec.Cmd
	made      int
}

func groupName(i int) string { return fmt.Sprintf("docker-%064x.scope", i+1) }

// cgroup2 is where cgroup v2 is mounted (cgroups(7)).
func cgroup2() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "cgroup2" {
			return fields[1], nil
		}
	}
	return "", errors.New("cgroup v2 is not mounted")
}

func newGroups() (*groups, error) {
	mount, err := cgroup2()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(mount, "sdtrace-bench-")
	if err != nil {
		return nil, fmt.Errorf("making control groups: %w", err)
	}
	return &groups{dir: dir}, nil
}

// grow makes control groups until there are n and, if alive, starts a process in each.
func (g *groups) grow(n int, alive bool) error {
	for ; g.made < n; g.made++ {
		if err := os.Mkdir(filepath.Join(g.dir, groupName(g.made)), 0o755); err != nil {
			return fmt.Errorf("making control groups: %w", err)
		}
	}
	for alive && len(g.processes) < n {
		if err := g.start(len(g.processes)); err != nil {
			return fmt.Errorf("starting a process in a control group: %w", err)
		}
	}
	return nil
}

func (g *groups) start(i int) error {
	dir, err := os.Open(filepath.Join(g.dir, groupName(i)))
	if err != nil {
		return err
	}
	defer dir.Close()
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	g.processes = append(g.processes, cmd)
	return nil
}

// paths are the first n.
func (g *groups) paths(n int) []string {
	var list []string
	for i := range n {
		list = append(list, filepath.Join(g.dir, groupName(i)))
	}
	return list
}

// close ends the processes and removes what was made. A sender must be gone by then.
func (g *groups) close() {
	for _, p := range g.processes {
		_ = p.Process.Kill()
	}
	for _, p := range g.processes {
		_ = p.Wait()
	}
	for _, path := range slices.Backward(g.paths(g.made)) {
		_ = os.Remove(path)
	}
	_ = os.Remove(g.dir)
}
