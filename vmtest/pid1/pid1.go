// SPDX-License-Identifier: Apache-2.0

// Package pid1 boots systemds as PID 1 of namespaces and a control group of their own,
// on this machine's kernel: in two seconds, several versions side by side. It needs root,
// and a root file system by fetch-systemd.sh.
package pid1

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/vmtest"
)

// Systemd is one that is PID 1 of its own namespaces.
type Systemd struct {
	// Name is that of its root file system: Debian's suite.
	Name string
	// Version is systemd's, the first number of it, and Major the same as a number.
	Version string
	Major   int
	// Shared is the directory that is /shared on the other side.
	Shared string
	// Cgroup is the directory of its control group on this side, outermost the one that was made for it: that, or
	// one above.
	Cgroup, outermost string
	// Console is what it has written to its console.
	Console Console

	// dir is a directory of its own, root what fetch-systemd.sh made, sdtrace the
	// program that is /sdtrace inside.
	dir, root, sdtrace string
	// notify receives what it says to its own NOTIFY_SOCKET.
	notify *net.UnixConn
	ready  chan struct{} // it has said READY=1
	cmd    *exec.Cmd
	exited chan struct{}
	others atomic.Int64 // booted by Another
}

// NotifySocket is the socket to which systemd itself says how it is, inside.
const NotifySocket = "/shared/manager.sock"

// patience bounds what never happens: an emulated machine beside others that are busy has needed two minutes.
const patience = 10 * time.Minute

// settings are for an emulated machine, which takes its time, the more so beside other tests.
const settings = "[Manager]\nDefaultTimeoutStartSec=10min\n"

// bootTarget is reached at once: the default target would start services that
// nobody needs here.
const bootTarget = "[Unit]\nDefaultDependencies=no\n"

// Boot starts the systemd of a directory made by fetch-systemd.sh, with dir, which it
// makes, as a directory of its own and sdtrace as /sdtrace inside. This binary is /roles
// there; its main function has to call [Play]. Its control group has below as the end of its path, as a container
// runtime would make it. The result is not nil once there is something to stop.
func Boot(root, dir, sdtrace string, below ...string) (*Systemd, error) {
	if static, err := isStatic("/proc/self/exe"); err != nil {
		return nil, err
	} else if !static {
		return nil, errors.New("this binary runs in other root file systems: it needs CGO_ENABLED=0")
	}
	version, err := os.ReadFile(filepath.Join(root, "version"))
	if err != nil {
		return nil, err
	}
	m := &Systemd{
		Name: filepath.Base(root), root: root, sdtrace: sdtrace, dir: dir,
		Shared: filepath.Join(dir, "shared"), exited: make(chan struct{}), ready: make(chan struct{}, 1),
	}
	m.Version, _, _ = strings.Cut(string(version), ".")
	if m.Major, err = strconv.Atoi(m.Version); err != nil {
		return nil, fmt.Errorf("version of systemd: %w", err)
	}
	top := filepath.Join(dir, "top")
	for _, d := range []string{dir, m.Shared, top} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	m.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(m.Shared, filepath.Base(NotifySocket))})
	if err != nil {
		return nil, err
	}
	go m.listen()
	master, slave, err := openTerminal()
	if err != nil {
		return nil, fmt.Errorf("opening a terminal: %w", err)
	}
	go func() { _, _ = io.Copy(&m.Console, master) }()
	mount, err := Cgroup2()
	if err != nil {
		return nil, err
	}
	m.outermost = filepath.Join(mount, fmt.Sprintf("sdtrace-%d-%s", os.Getpid(), filepath.Base(dir)))
	m.Cgroup = filepath.Join(append([]string{m.outermost}, below...)...)
	if err := os.MkdirAll(m.Cgroup, 0o755); err != nil {
		return nil, err
	}
	cgroup, err := os.Open(m.Cgroup)
	if err != nil {
		return m, err
	}
	defer cgroup.Close()

	m.cmd = exec.Command("/proc/self/exe", role, filepath.Join(root, "root"), top, m.Shared, slave, sdtrace)
	m.cmd.Stderr = &m.Console
	m.cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWPID,
		// Only afterwards, so that the cgroup that it is in is the root of its cgroup namespace.
		Unshareflags: unix.CLONE_NEWCGROUP,
		UseCgroupFD:  true,
		CgroupFD:     int(cgroup.Fd()),
		Pdeathsig:    unix.SIGKILL,
	}
	started := make(chan error)
	go func() {
		// Pdeathsig is of the thread that has started it: one that goes on until its end.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := m.cmd.Start()
		started <- err
		if err == nil {
			_ = m.cmd.Wait()
			close(m.exited)
		}
	}()
	if err := <-started; err != nil {
		m.cmd = nil
		return m, err
	}
	return m, nil
}

// listen reads what systemd says to its own NOTIFY_SOCKET: it would wait for somebody to do so.
func (m *Systemd) listen() {
	buffer := make([]byte, 4096)
	for {
		n, err := m.notify.Read(buffer)
		if err != nil {
			return
		}
		if slices.Contains(strings.Split(string(buffer[:n]), "\n"), "READY=1") {
			select {
			case m.ready <- struct{}{}:
			default:
			}
		}
	}
}

// AwaitReady waits until systemd says that it is ready: after it was booted, and after it
// was told to execute or load itself anew.
func (m *Systemd) AwaitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case <-m.ready:
		return nil
	case <-m.exited:
		return fmt.Errorf("it has ended: %s", m.Console.String())
	case <-ctx.Done():
		return fmt.Errorf("it is not ready after %s: %s", patience, m.Console.String())
	}
}

// Stop ends systemd and everything that it started.
func (m *Systemd) Stop() error {
	if m.cmd != nil {
		_ = m.cmd.Process.Kill()
		<-m.exited
	}
	_ = m.notify.Close()
	return removeCgroup(m.outermost)
}

// isStatic reports whether an executable asks for no dynamic loader.
func isStatic(exe string) (bool, error) {
	f, err := elf.Open(exe)
	if err != nil {
		return false, err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false, nil
		}
	}
	return true, nil
}

// BootAll has fetch-systemd.sh make the root file systems of these names and boots them side by
// side, each with a directory below base. Those to be stopped are returned with an error, too. The
// working directory is one of vmtest's.
func BootAll(base, sdtrace string, names ...string) (booted []*Systemd, err error) {
	fetch := exec.Command("../fetch-systemd.sh", names...)
	fetch.Stderr = os.Stderr
	if err := fetch.Run(); err != nil {
		return nil, fmt.Errorf("fetching systemd: %w", err)
	}
	mount, err := Cgroup2()
	if err != nil {
		return nil, err
	}
	removeStaleCgroups(mount)
	cache, err := vmtest.CacheDir()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		m, err := Boot(filepath.Join(cache, "systemd", name), filepath.Join(base, name), sdtrace)
		if m != nil {
			booted = append(booted, m)
		}
		if err != nil {
			return booted, fmt.Errorf("booting systemd of %s: %w", name, err)
		}
	}
	for _, m := range booted {
		if err := m.AwaitReady(); err != nil {
			return booted, fmt.Errorf("booting systemd of %s: %w", m.Name, err)
		}
	}
	return booted, nil
}

// Another boots one more of the same version, for what disturbs it, or in a control group that ends in below.
func (m *Systemd) Another(below ...string) (*Systemd, error) {
	return Boot(m.root, fmt.Sprintf("%s-%d", m.dir, m.others.Add(1)), m.sdtrace, below...)
}

// Signal sends a signal to systemd itself.
func (m *Systemd) Signal(signal os.Signal) error { return m.cmd.Process.Signal(signal) }

// Root is the directory that fetch-systemd.sh has made.
func (m *Systemd) Root() string { return m.root }

// PID is that of systemd on this side.
func (m *Systemd) PID() int { return m.cmd.Process.Pid }

// Inside is where a file of systemd's root is on this side.
func (m *Systemd) Inside(path string) string { return fmt.Sprintf("/proc/%d/root%s", m.PID(), path) }

// role is the first argument of this binary when it is to boot.
const role = "boot-pid1"

// Play boots instead of returning, where this process was started for that.
func Play() {
	if len(os.Args) < 2 {
		return
	}
	var err error
	switch os.Args[1] {
	case role:
		err = playBoot(os.Args[2:])
	case nestedRole:
		err = playNested()
	default:
		return
	}
	fmt.Fprintln(os.Stderr, "booting:", err)
	os.Exit(101)
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
	touch := func(name string) error {
		if _, err := os.Stat(name); err == nil { // of the systemd that this one is nested in
			return nil
		}
		return os.WriteFile(name, nil, 0o755)
	}

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
	// What container runtimes look for.
	if err := makeAll(mkdir, "dev/pts", "dev/shm", "dev/mqueue", "run/systemd/system", "run/systemd/system.conf.d"); err != nil {
		return err
	}
	if err := do(
		mount{"devpts", "dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"},
		mount{"tmpfs", "dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		mount{"mqueue", "dev/mqueue", "mqueue", strict, ""},
	); err != nil {
		return err
	}
	if err := os.Symlink("pts/ptmx", "dev/ptmx"); err != nil {
		return err
	}
	if err := os.WriteFile("run/systemd/system/boot.target", []byte(bootTarget), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile("run/systemd/system.conf.d/machine.conf", []byte(settings), 0o644); err != nil {
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
		[]string{"container=sdtrace", "PATH=/usr/sbin:/usr/bin", "SYSTEMD_COLORS=0", "NOTIFY_SOCKET=" + NotifySocket})
}

// Command is a program of systemd's root that is run in systemd's namespaces.
func (m *Systemd) Command(ctx context.Context, argv ...string) *exec.Cmd {
	target := []string{"--target", strconv.Itoa(m.PID()), "--mount", "--uts", "--ipc", "--net", "--pid", "--"}
	cmd := exec.CommandContext(ctx, "nsenter", append(target, argv...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER="}
	return cmd
}

// Systemctl runs it and returns what it prints to stdout.
func (m *Systemd) Systemctl(ctx context.Context, args ...string) (string, error) {
	cmd := m.Command(ctx, append([]string{"systemctl"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Show returns properties of a unit by name, as systemctl show prints them.
func (m *Systemd) Show(ctx context.Context, unit string, properties ...string) (map[string]string, error) {
	out, err := m.Systemctl(ctx, "show", unit, "--property="+strings.Join(properties, ","))
	if err != nil {
		return nil, err
	}
	shown := make(map[string]string)
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		shown[name] = value
	}
	return shown, nil
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

// Cgroup2 finds where cgroup v2 is mounted.
func Cgroup2() (string, error) {
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

// Console keeps what was written to it.
type Console struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	more chan struct{} // closed by the next write, when somebody waits for it
}

// Write implements [io.Writer].
func (o *Console) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
	return o.buf.Write(p)
}

// Await waits until ok accepts all that was written, and reports whether it did so before
// the context ended.
func (o *Console) Await(ctx context.Context, ok func(all string) bool) bool {
	for {
		o.mu.Lock()
		all := o.buf.String()
		if o.more == nil {
			o.more = make(chan struct{})
		}
		more := o.more
		o.mu.Unlock()
		if ok(all) {
			return true
		}
		select {
		case <-more:
		case <-ctx.Done():
			return false
		}
	}
}

// String returns all of it.
func (o *Console) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// About returns the lines that contain a word.
func (o *Console) About(word string) string {
	var lines strings.Builder
	for line := range strings.Lines(o.String()) {
		if strings.Contains(line, word) {
			lines.WriteString(line)
		}
	}
	return lines.String()
}
