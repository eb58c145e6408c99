// SPDX-License-Identifier: Apache-2.0

package systemd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is a systemd that is PID 1 of its own namespaces.
type manager struct {
	// suite is Debian's, version systemd's first number.
	suite, version string
	major          int
	// dir is a directory of its own, the one shared in it is /shared on the other side.
	dir, shared string
	// root is what fetch-systemd.sh made, sdtrace the program to be tested.
	root, sdtrace string
	// cgroup is the directory of its cgroup on this side.
	cgroup string
	// notify receives what it says to its own NOTIFY_SOCKET.
	notify  *net.UnixConn
	cmd     *exec.Cmd
	exited  chan struct{}
	console output
	others  atomic.Int64 // booted by another
}

// bootTarget is reached at once: the default target would start services that
// nobody needs here.
const bootTarget = "[Unit]\nDefaultDependencies=no\n"

// boot starts the systemd of a root made by fetch-systemd.sh, with a directory
// of its own. The manager is not nil once there is something to stop.
func boot(root, dir, sdtrace string) (*manager, error) {
	version, err := os.ReadFile(filepath.Join(root, "version"))
	if err != nil {
		return nil, err
	}
	m := &manager{suite: filepath.Base(root), root: root, sdtrace: sdtrace, dir: dir, shared: filepath.Join(dir, "shared"), exited: make(chan struct{})}
	m.version, _, _ = strings.Cut(string(version), ".")
	if m.major, err = strconv.Atoi(m.version); err != nil {
		return nil, fmt.Errorf("version of systemd: %w", err)
	}
	top := filepath.Join(dir, "top")
	for _, d := range []string{dir, m.shared, top} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	m.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(m.shared, "manager.sock")})
	if err != nil {
		return nil, err
	}
	master, slave, err := openTerminal()
	if err != nil {
		return nil, fmt.Errorf("opening a terminal: %w", err)
	}
	go func() { _, _ = io.Copy(&m.console, master) }()
	mount, err := cgroup2()
	if err != nil {
		return nil, err
	}
	m.cgroup = filepath.Join(mount, fmt.Sprintf("sdtrace-%d-%s", os.Getpid(), filepath.Base(dir)))
	if err := os.Mkdir(m.cgroup, 0o755); err != nil {
		return nil, err
	}
	cgroup, err := os.Open(m.cgroup)
	if err != nil {
		return m, err
	}
	defer cgroup.Close()

	m.cmd = exec.Command("/proc/self/exe", "boot", filepath.Join(root, "root"), top, m.shared, slave, sdtrace)
	m.cmd.Stderr = &m.console
	m.cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWPID,
		// Only afterwards, so that the cgroup that it is in is the root of its cgroup namespace.
		Unshareflags: unix.CLONE_NEWCGROUP,
		UseCgroupFD:  true,
		CgroupFD:     int(cgroup.Fd()),
		Pdeathsig:    unix.SIGKILL,
	}
	if err := m.cmd.Start(); err != nil {
		m.cmd = nil
		return m, err
	}
	go func() {
		_ = m.cmd.Wait()
		close(m.exited)
	}()
	return m, nil
}

// awaitReady waits until systemd says that it is ready.
func (m *manager) awaitReady() error {
	ready := make(chan error, 1)
	go func() {
		buffer := make([]byte, 4096)
		for {
			_ = m.notify.SetReadDeadline(time.Now().Add(patience))
			n, err := m.notify.Read(buffer)
			if err != nil || slices.Contains(strings.Split(string(buffer[:n]), "\n"), "READY=1") {
				ready <- err
				return
			}
		}
	}()
	select {
	case err := <-ready:
		return err
	case <-m.exited:
		return errors.New("it has ended")
	}
}

// stop ends systemd and everything that it started.
func (m *manager) stop() error {
	if m.cmd != nil {
		_ = m.cmd.Process.Kill()
		<-m.exited
	}
	_ = m.notify.Close()
	return removeCgroup(m.cgroup)
}

// another boots one more of the same version for a test that disturbs it.
func (m *manager) another(t *testing.T) *manager {
	t.Helper()
	own, err := boot(m.root, fmt.Sprintf("%s-%d", m.dir, m.others.Add(1)), m.sdtrace)
	if own != nil {
		t.Cleanup(func() {
			if err := own.stop(); err != nil {
				t.Error(err)
			}
		})
	}
	if err == nil {
		err = own.awaitReady()
	}
	if err != nil {
		t.Fatalf("booting systemd %s: %v", m.version, err)
	}
	return own
}

// playBoot makes the namespaces it is in a machine and becomes its PID 1.
func playBoot(args []string) error {
	root, top, shared, console, sdtrace := args[0], args[1], args[2], args[3], args[4]
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	const strict = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	type mount struct {
		source, target, fstype string
		flags                  uintptr
		data                   string
	}
	do := func(mounts ...mount) error {
		for _, m := range mounts {
			if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
				return fmt.Errorf("mounting %s %s: %w", m.fstype, m.target, err)
			}
		}
		return nil
	}
	makeAll := func(make func(string) error, names ...string) error {
		for _, name := range names {
			if err := make(name); err != nil {
				return err
			}
		}
		return nil
	}
	mkdir := func(name string) error { return os.MkdirAll(name, 0o755) }
	touch := func(name string) error { return os.WriteFile(name, nil, 0o755) }

	// The root is an overlay, so that the next run finds it as this one did.
	if err := do(mount{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""}, mount{"tmpfs", top, "tmpfs", 0, "mode=0755"}); err != nil {
		return err
	}
	if err := os.Chdir(top); err != nil {
		return err
	}
	if err := makeAll(mkdir, "lower", "upper", "work", "root"); err != nil {
		return err
	}
	if err := do(
		mount{root, "lower", "", unix.MS_BIND, ""},
		mount{"overlay", "root", "overlay", 0, "lowerdir=lower,upperdir=upper,workdir=work"},
	); err != nil {
		return err
	}
	if err := os.Chdir("root"); err != nil {
		return err
	}
	if err := makeAll(mkdir, "proc.host", "shared"); err != nil {
		return err
	}
	if err := makeAll(touch, "roles", "sdtrace"); err != nil {
		return err
	}
	if err := do(
		mount{"proc", "proc", "proc", strict, ""},
		// systemd would set limits of the whole machine.
		mount{"proc/sys", "proc/sys", "", unix.MS_BIND, ""},
		mount{"proc/sys/net", "proc/sys/net", "", unix.MS_BIND, ""},
		mount{"", "proc/sys", "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY | strict, ""},
		// Without one that nothing covers, a user namespace may not mount proc.
		mount{"proc", "proc.host", "proc", strict, ""},
		mount{"sysfs", "sys", "sysfs", strict | unix.MS_RDONLY, ""},
		mount{"cgroup2", "sys/fs/cgroup", "cgroup2", strict, ""},
		mount{"tmpfs", "dev", "tmpfs", unix.MS_NOSUID, "mode=0755"},
		mount{"tmpfs", "run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
		mount{"tmpfs", "tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		mount{shared, "shared", "", unix.MS_BIND, ""},
		mount{self, "roles", "", unix.MS_BIND, ""},
		mount{sdtrace, "sdtrace", "", unix.MS_BIND, ""},
	); err != nil {
		return err
	}
	for name, from := range map[string]string{
		"null": "/dev/null", "zero": "/dev/zero", "full": "/dev/full", "random": "/dev/random",
		"urandom": "/dev/urandom", "tty": "/dev/tty", "console": console,
	} {
		to := filepath.Join("dev", name)
		if err := touch(to); err != nil {
			return err
		}
		if err := do(mount{from, to, "", unix.MS_BIND, ""}); err != nil {
			return err
		}
	}
	if err := mkdir("run/systemd/system"); err != nil {
		return err
	}
	if err := os.WriteFile("run/systemd/system/boot.target", []byte(bootTarget), 0o644); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting the old root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return unix.Exec("/usr/lib/systemd/systemd",
		[]string{"systemd", "--unit=boot.target", "--log-target=console", "--show-status=no"},
		[]string{"container=sdtrace", "PATH=/usr/sbin:/usr/bin", "SYSTEMD_COLORS=0", "NOTIFY_SOCKET=/shared/manager.sock"})
}

// command is a program of systemd's root that is run in systemd's namespaces.
func (m *manager) command(ctx context.Context, argv ...string) *exec.Cmd {
	target := []string{"--target", strconv.Itoa(m.cmd.Process.Pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--"}
	cmd := exec.CommandContext(ctx, "nsenter", append(target, argv...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER="}
	return cmd
}

// systemctl runs it and returns what it prints to stdout.
func (m *manager) systemctl(ctx context.Context, args ...string) (string, error) {
	cmd := m.command(ctx, append([]string{"systemctl"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// removeStaleCgroups removes those of runs that were killed.
func removeStaleCgroups(mount string) {
	stale, _ := filepath.Glob(filepath.Join(mount, "sdtrace-*-*"))
	for _, dir := range stale {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), "sdtrace-"), "-")
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, os.ErrNotExist) {
			_ = removeCgroup(dir)
		}
	}
}

// removeCgroup removes a cgroup that no process is in, and those below it.
func removeCgroup(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	for _, dir := range slices.Backward(dirs) {
		err = errors.Join(err, os.Remove(dir))
	}
	return err
}

// cgroup2 finds where cgroup v2 is mounted.
func cgroup2() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		left, right, _ := strings.Cut(line, " - ")
		if strings.HasPrefix(right, "cgroup2 ") {
			return strings.Fields(left)[4], nil
		}
	}
	return "", errors.New("cgroup v2 is not mounted")
}

// openTerminal opens a pseudo terminal and returns the other side's path.
func openTerminal() (master *os.File, slave string, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", err
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, "", err
	}
	slave = fmt.Sprintf("/dev/pts/%d", number)
	// Held open: a terminal nobody has open cannot be read.
	if _, err := unix.Open(slave, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
		_ = unix.Close(fd)
		return nil, "", err
	}
	return os.NewFile(uintptr(fd), "ptmx"), slave, nil
}

// output keeps what was written to it.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// about returns the lines that contain a word.
func (o *output) about(word string) string {
	var lines strings.Builder
	for line := range strings.Lines(o.String()) {
		if strings.Contains(line, word) {
			lines.WriteString(line)
		}
	}
	return lines.String()
}
