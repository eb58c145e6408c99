// SPDX-License-Identifier: Apache-2.0

//go:build linux

package boot_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
)

// The ports by which the machine tells this one what happens in it: what sdtrace
// captures, and what the walk's commands print.
const (
	capturePort = "/dev/vport0p1"
	walkPort    = "/dev/vport0p2"
)

// The files in the machine.
const (
	walkFile = "/walk.json"
	// moduleFile lists sockets. Elsewhere the kernel has it loaded when it is asked for.
	moduleFile = "/unix_diag.ko"
	// profileFile is a profile of AppArmor, compiled.
	profileFile = "/confined.policy"
	guestPath   = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// playInit is the first process: it starts a capture, and becomes systemd.
func playInit() error {
	if err := leaveRootfs(); err != nil {
		return fmt.Errorf("leaving the rootfs: %w", err)
	}
	if err := mountAll(); err != nil {
		return err
	}
	if err := loadModule(moduleFile); err != nil {
		return fmt.Errorf("loading %s: %w", moduleFile, err)
	}
	if err := startCapture(); err != nil {
		return fmt.Errorf("starting the capture: %w", err)
	}
	return unix.Exec("/usr/lib/systemd/systemd", []string{"/sbin/init"}, []string{guestPath, "TERM=dumb"})
}

// leaveRootfs makes a mount of its own of the root file system. The kernel's cannot
// be left by pivot_root(2), which container runtimes do.
func leaveRootfs() error {
	const dir = "/rootfs"
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/", dir, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	return unix.Chroot(".")
}

// mountAll mounts what sdtrace needs, as systemd would: it leaves what is there.
func mountAll() error {
	const strict = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []struct {
		kind, dir string
		flags     uintptr
		data      string
	}{
		{"proc", "/proc", strict, ""},
		{"sysfs", "/sys", strict, ""},
		{"devtmpfs", "/dev", unix.MS_NOSUID, "mode=755"},
		{"tmpfs", "/run", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
		{"cgroup2", "/sys/fs/cgroup", strict, "nsdelegate,memory_recursiveprot"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mounting %s: %w", m.dir, err)
		}
	}
	return nil
}

func loadModule(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// startCapture returns once sdtrace captures. It goes on below the systemd that
// this process becomes.
func startCapture() error {
	port, err := openPort(capturePort)
	if err != nil {
		return err
	}
	defer port.Close()
	says, err := openPipe()
	if err != nil {
		return err
	}
	defer says.Close()
	capture := exec.Command("/usr/bin/sdtrace", "--backend", "fentry", "-o", "json")
	capture.Env = []string{guestPath}
	capture.Stdout, capture.Stderr = port, says
	if err := capture.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(says).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.Contains(line, ": capturing with fentry") {
		return fmt.Errorf("it says %q", line)
	}
	return nil
}

// openPipe opens a pipe for reading and writing in one: who has it can write to it
// also when there is no other reader left.
func openPipe() (*os.File, error) {
	const name = "/run/capture"
	if err := unix.Mkfifo(name, 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(name)
	return os.OpenFile(name, os.O_RDWR, 0)
}

// openPort opens a port, which the kernel may find only now.
func openPort(name string) (port *os.File, err error) {
	await.Holds(func() bool {
		port, err = os.OpenFile(name, os.O_WRONLY, 0)
		return !errors.Is(err, fs.ErrNotExist)
	})
	return port, err
}

// step is a command line of the walk.
type step struct {
	Line string
	// Meanwhile are run while Line runs. It is interrupted after them, and not
	// before it has printed what the regular expression Until matches.
	Meanwhile []step `json:",omitempty"`
	Until     string `json:",omitempty"`
}

// walked is what became of a step.
type walked struct {
	Line   string
	Output string
	Status int
	// Began is the CLOCK_BOOTTIME, Clock what the clock said then.
	Began, Took time.Duration
	Clock       time.Time
	Meanwhile   []walked `json:",omitempty"`
}

// playWalk runs the steps one after the other, tells what each has printed, and
// switches the machine off.
func playWalk() error {
	defer func() { _ = exec.Command("systemctl", "poweroff", "--no-block").Run() }()
	port, err := openPort(walkPort)
	if err != nil {
		return err
	}
	defer port.Close()
	text, err := os.ReadFile(walkFile)
	if err != nil {
		return err
	}
	var steps []step
	if err := json.Unmarshal(text, &steps); err != nil {
		return err
	}
	for _, s := range steps {
		line, err := json.Marshal(s.run())
		if err != nil {
			return err
		}
		if _, err := port.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return nil
}

// run runs the step as a shell at a terminal does.
func (s step) run() walked {
	w := walked{Line: s.Line, Clock: time.Now(), Began: sinceBoot()} //nolint:forbidigo // a fact, no limit
	ctx, cancel := context.WithTimeout(context.Background(), await.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", s.Line)
	cmd.Env = append(os.Environ(), "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=", "LANG=C.UTF-8", "HOME=/root", guestPath)
	cmd.Dir = "/root"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	screen := new(screen)
	cmd.Stdout, cmd.Stderr = screen, screen
	err := cmd.Start()
	if err == nil {
		if len(s.Meanwhile) > 0 {
			w.Meanwhile = s.beside(cmd, screen)
		}
		err = cmd.Wait()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		w.Status = exit.ExitCode()
	} else if err != nil {
		w.Status = -1
		fmt.Fprintln(screen, err)
	}
	w.Output = screen.String()
	w.Took = sinceBoot() - w.Began
	return w
}

// beside does what is to be done while the step's command runs, and interrupts it.
func (s step) beside(cmd *exec.Cmd, screen *screen) []walked {
	var all []walked
	screen.await(regexp.MustCompile("\n")) // it says that it has begun
	for _, m := range s.Meanwhile {
		all = append(all, m.run())
	}
	if !screen.await(regexp.MustCompile(s.Until)) {
		fmt.Fprintf(screen, "%q has not come\n", s.Until)
	}
	fmt.Fprintln(screen, "^C")
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
	return all
}

func sinceBoot() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		panic(err)
	}
	return time.Duration(now.Nano())
}

// screen is what a command has printed so far.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write adds to the screen.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// String is what is there.
func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits until something matches, and reports whether that is so.
func (s *screen) await(pattern *regexp.Regexp) bool {
	return await.Holds(func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return pattern.Match(s.text.Bytes())
	})
}
