// SPDX-License-Identifier: Apache-2.0

//go:build linux

package boot_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The ports by which the machine tells this one what happens in it: what sdtrace
// captures, and what the walk's commands print.
const (
	capturePort = "/dev/vport0p1"
	walkPort    = "/dev/vport0p2"
)

// The files in the machine.
const (
	walkFile  = "/walk.json"
	guestPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// initAddress is where the sdtrace of the whole boot says that it captures.
const initAddress = "@before-systemd"

// playInit is the first process: it starts a capture, and becomes systemd.
func playInit() error {
	if err := leaveRootfs(); err != nil {
		return fmt.Errorf("leaving the rootfs: %w", err)
	}
	if err := mountAll(); err != nil {
		return err
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

// startCapture returns once sdtrace captures. It goes on below the systemd that
// this process becomes.
func startCapture() error {
	port, err := openPort(capturePort)
	if err != nil {
		return err
	}
	defer port.Close()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: initAddress})
	if err != nil {
		return err
	}
	defer notify.Close()
	capture := exec.Command("/usr/bin/sdtrace", "--backend", "fentry", "-o", "json")
	capture.Env = []string{guestPath, "NOTIFY_SOCKET=" + initAddress}
	capture.Stdout, capture.Stderr = port, os.Stderr
	if err := capture.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		ended <- fmt.Errorf("sdtrace has ended: %w", errors.Join(capture.Wait(), notify.Close()))
	}()
	buffer := make([]byte, 4096)
	for {
		n, err := notify.Read(buffer)
		if err != nil {
			return errors.Join(err, <-ended)
		}
		if slices.Contains(strings.Split(string(buffer[:n]), "\n"), "READY=1") {
			return nil
		}
	}
}

// openPort opens a port, which the kernel may find only now.
func openPort(name string) (*os.File, error) {
	for limit := time.Now().Add(patience); ; {
		port, err := os.OpenFile(name, os.O_WRONLY, 0)
		if !errors.Is(err, fs.ErrNotExist) || time.Now().After(limit) {
			return port, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// step is a command line of the walk.
type step struct {
	Line string
}

// walked is what became of a step.
type walked struct {
	Line   string
	Output string
	Status int
	Took   float64 // seconds
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

func (s step) run() walked {
	start := time.Now()
	cmd := exec.Command("bash", "-c", s.Line)
	cmd.Env = append(os.Environ(), "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=", "LANG=C.UTF-8", "HOME=/root", guestPath)
	cmd.Dir = "/root"
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	w := walked{Line: s.Line}
	if err := cmd.Run(); err != nil {
		w.Status = -1
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			w.Status = exit.ExitCode()
		} else {
			fmt.Fprintln(&output, err)
		}
	}
	w.Output = output.String()
	w.Took = time.Since(start).Seconds()
	return w
}
