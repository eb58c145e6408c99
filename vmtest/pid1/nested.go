// SPDX-License-Identifier: Apache-2.0

//go:build linux

package pid1

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// nestedRole is the first argument of this binary when it is to boot a systemd in another one.
	nestedRole = "boot-nested"
	nestedUnit = "nested.service"
	nestedLog  = "nested.log"
	// nestedGroup is the control group below the unit that the nested systemd begins in.
	nestedGroup = "machine"
	// firstID is the user and group outside that are 0 in its user namespace.
	firstID = 100000
)

// Nested is a systemd that runs in a unit of another one, as systemd-nspawn -U and rootless engines
// start one: all its namespaces are its own, and belong to a user namespace.
type Nested struct {
	// PID is its process on this side.
	PID int
}

// Nest boots one more of the same version, with the same root, in the unit nested.service. It ends
// with m.
func (m *Systemd) Nest(ctx context.Context) (*Nested, error) {
	unit := "[Unit]\nDefaultDependencies=no\n[Service]\nType=exec\nDelegate=yes\nExecStart=/roles " + nestedRole +
		"\nStandardOutput=append:/shared/" + nestedLog + "\nStandardError=inherit\n"
	if err := os.WriteFile(m.Inside("/run/systemd/system/"+nestedUnit), []byte(unit), 0o644); err != nil {
		return nil, err
	}
	if _, err := m.Systemctl(ctx, "start", nestedUnit); err != nil {
		return nil, err
	}
	for ctx.Err() == nil {
		// It is process 1 in there, and moves to this control group when it begins.
		procs, err := os.ReadFile(filepath.Join(m.Cgroup, "system.slice", nestedUnit, nestedGroup, "init.scope", "cgroup.procs"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		if pid, err := strconv.Atoi(strings.TrimSpace(string(procs))); err == nil {
			n := &Nested{PID: pid}
			if _, err := os.Stat(n.Inside("/run/systemd/private")); err == nil {
				return n, nil
			}
		}
		if state, err := m.Systemctl(ctx, "is-active", nestedUnit); err != nil {
			log, _ := os.ReadFile(filepath.Join(m.Shared, nestedLog))
			return nil, fmt.Errorf("%s is %s: %s", nestedUnit, strings.TrimSpace(state), log)
		}
	}
	return nil, ctx.Err()
}

// Inside is where a file of its root is on this side.
func (n *Nested) Inside(path string) string { return fmt.Sprintf("/proc/%d/root%s", n.PID, path) }

// Command is a program of its root that is run in all its namespaces, as its user 0.
func (n *Nested) Command(ctx context.Context, argv ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(n.PID), "--user", "--mount", "--uts", "--ipc", "--net", "--pid", "--"}
	return exec.CommandContext(ctx, "nsenter", append(enter, argv...)...)
}

// playNested is what nested.service is: it starts the systemd and waits for its end.
func playNested() error {
	const root, top, group = "/tmp/nested-root", "/tmp/nested", "/sys/fs/cgroup/system.slice/" + nestedUnit + "/" + nestedGroup
	for _, dir := range []string{root, top, group} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	// Without what is mounted below it, which the user namespace may not uncover.
	if err := unix.Mount("/", root, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	for _, name := range []string{top, group, group + "/cgroup.procs", group + "/cgroup.subtree_control", group + "/cgroup.threads"} {
		if err := os.Chown(name, firstID, firstID); err != nil {
			return err
		}
	}
	cgroup, err := os.Open(group)
	if err != nil {
		return err
	}
	defer cgroup.Close()
	cmd := exec.Command("/proc/self/exe", role, root, top, "/shared", "/dev/null", "/sdtrace")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: firstID, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true,
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET |
			unix.CLONE_NEWPID,
		Unshareflags: unix.CLONE_NEWCGROUP,
		UseCgroupFD:  true,
		CgroupFD:     int(cgroup.Fd()),
		UidMappings:  ids, GidMappings: ids,
		Credential: &syscall.Credential{Uid: 0, Gid: 0},
	}
	return cmd.Run()
}
