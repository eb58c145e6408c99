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
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sdtrace/sdtrace/vmtest"
)

const (
	kernelName = "6.12-amd64"
	rootName   = "trixie-runtimes"
)

// untilStopped is how long before the test binary's own limit a machine is given
// up, so that its console is shown. It takes two minutes, and more beside other tests.
const untilStopped = 30 * time.Second

// run is what a machine has told.
type run struct {
	capture []byte   // JSON Lines
	walked  []walked // in the order of the steps
	console []byte
}

// runMachine boots a machine, has it walk, and returns when it is off.
func runMachine(t *testing.T, steps []step) *run {
	t.Helper()
	cache := fetchAll(t)
	dir := t.TempDir()
	initrd := filepath.Join(dir, "initramfs.cpio")
	if err := packMachine(t, initrd, cache, steps); err != nil {
		t.Fatalf("packing the initramfs: %v", err)
	}
	ctx := t.Context()
	if limit, set := t.Deadline(); set {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, limit.Add(-untilStopped))
		defer cancel()
	}
	captured, walk := filepath.Join(dir, "capture"), filepath.Join(dir, "walk")
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		// See vmtest/run for why.
		"-M", "q35", "-accel", "tcg,thread=single", "-cpu", "qemu64", "-smp", "2", "-m", "3G",
		"-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-device", "virtio-serial-pci",
		"-chardev", "file,id=capture,path="+captured, "-device", "virtserialport,chardev=capture",
		"-chardev", "file,id=walk,path="+walk, "-device", "virtserialport,chardev=walk",
		"-kernel", kernel(t).Image(cache), "-initrd", initrd,
		"-append", "console=ttyS0 quiet loglevel=1 panic=-1 nowatchdog rcupdate.rcu_cpu_stall_suppress=1 systemd.show_status=no")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	console, err := cmd.CombinedOutput()
	r := &run{console: console}
	var errs [3]error
	errs[0] = err
	r.capture, errs[1] = os.ReadFile(captured)
	r.walked, errs[2] = readWalk(walk)
	if err := errors.Join(errs[:]...); err != nil || len(r.walked) != len(steps) {
		t.Fatalf("%d of %d steps were walked (%v). The console:\n%s", len(r.walked), len(steps), err, console)
	}
	return r
}

func readWalk(file string) ([]walked, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []walked
	for line := range bytes.Lines(text) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // the machine died
		}
		var w walked
		if err := json.Unmarshal(line, &w); err != nil {
			return all, fmt.Errorf("reading what was walked: %w", err)
		}
		all = append(all, w)
	}
	return all, nil
}

func kernel(t *testing.T) vmtest.Kernel {
	t.Helper()
	all := vmtest.Kernels()
	i := slices.IndexFunc(all, func(k vmtest.Kernel) bool { return k.Name == kernelName })
	if i < 0 {
		t.Fatalf("there is no kernel %s", kernelName)
	}
	return all[i]
}

// fetchAll has the kernel and the root file system fetched if they are not there,
// and returns the cache.
func fetchAll(t *testing.T) string {
	t.Helper()
	for _, argv := range [][]string{{"../fetch-kernels.sh", kernelName}, {"../fetch-systemd.sh", rootName}} {
		if output, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", argv, err, output)
		}
	}
	cache, err := vmtest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return cache
}

// leftOut are files and directories of the root that no step uses.
var leftOut = map[string]bool{
	"usr/bin/podman": true, "usr/bin/crun": true, "usr/bin/conmon": true, "usr/bin/ctr": true,
	"usr/bin/containerd-shim": true, "usr/bin/containerd-shim-runc-v1": true,
	"usr/lib/podman": true, "usr/libexec/podman": true, "usr/lib/cni": true, "usr/lib/gnupg": true, "usr/bin/perl": true,
}

// keptShares are the only parts of usr/share that something needs.
var keptShares = []string{"dbus-1", "pam", "pam-configs"}

func isLeftOut(name string) bool {
	if share, found := strings.CutPrefix(name, "usr/share/"); found {
		top, _, _ := strings.Cut(share, "/")
		return !slices.Contains(keptShares, top)
	}
	return leftOut[name]
}

// packMachine writes the whole machine: Debian's files, the machine's own, sdtrace,
// this binary, and what it is to do.
func packMachine(t *testing.T, file, cache string, steps []step) (err error) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	out := bufio.NewWriterSize(f, 1<<20)
	archive := vmtest.NewInitramfs(out)
	if err := archive.AddRoot(filepath.Join(cache, "systemd", rootName, "root"), isLeftOut); err != nil {
		return err
	}
	if err := addOwn(archive); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	web := build(t, "./vmtest/boot/web")
	for name, file := range map[string]string{"init": self, "usr/bin/sdtrace": build(t, "./cmd/sdtrace"), "srv/web/rootfs/web": web} {
		program, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := archive.Add(name, 0o755, program); err != nil {
			return err
		}
	}
	program, err := os.ReadFile(web)
	if err != nil {
		return err
	}
	image, err := vmtest.ProgramArchive("web", program)
	if err != nil {
		return err
	}
	if err := archive.Add("root/web.tar", 0o644, image); err != nil {
		return err
	}
	module, err := unpackModule(t, cache, "kernel/net/unix/unix_diag.ko.xz")
	if err != nil {
		return err
	}
	if err := archive.Add(moduleFile, 0o644, module); err != nil {
		return err
	}
	policy, err := compileProfile(t)
	if err != nil {
		return err
	}
	if err := archive.Add(profileFile, 0o644, policy); err != nil {
		return err
	}
	list, err := json.Marshal(steps)
	if err != nil {
		return err
	}
	return errors.Join(archive.Add(walkFile, 0o644, list), archive.Close(), out.Flush())
}

// unpackModule reads a module of the machine's kernel.
func unpackModule(t *testing.T, cache, name string) ([]byte, error) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(cache, "kernels", kernelName, "lib/modules/*", name))
	if err != nil || len(found) != 1 {
		return nil, fmt.Errorf("%d modules %s in the cache (%w)", len(found), name, err)
	}
	return exec.CommandContext(t.Context(), "xz", "--decompress", "--stdout", found[0]).Output()
}

// compileProfile makes of the profile of confined.service what the kernel loads (apparmor_parser(8)), with the
// abilities that Debian's file lists: this machine's kernel may have none.
func compileProfile(t *testing.T) ([]byte, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "apparmor_parser", "--skip-kernel-load", "--skip-cache", "--stdout",
		"--features-file", "/etc/apparmor.d/abi/3.0", "testdata/confined.apparmor")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	policy, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("compiling the profile: %w: %s", err, stderr.String())
	}
	return policy, nil
}

// build makes a program of the module that runs without any library.
func build(t *testing.T, pkg string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", file, pkg)
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", pkg, err, output)
	}
	return file
}

// enabled are the units that are started at boot, beside those that Debian's
// packages come with.
var enabled = map[string]string{
	"multi-user.target.wants/containerd.service": "/usr/lib/systemd/system/containerd.service",
	"multi-user.target.wants/docker.service":     "/usr/lib/systemd/system/docker.service",
	"sockets.target.wants/docker.socket":         "/usr/lib/systemd/system/docker.socket",
	"multi-user.target.wants/walk.service":       "/etc/systemd/system/walk.service",
	// There is no udev to tell that the terminal is there, and nobody at it.
	"serial-getty@ttyS0.service": "/dev/null",
	"getty@tty1.service":         "/dev/null",
	// Emulated, these take their time, and nobody uses what they make.
	"systemd-modules-load.service":           "/dev/null",
	"ldconfig.service":                       "/dev/null",
	"systemd-journal-catalog-update.service": "/dev/null",
}

func addOwn(archive *vmtest.Initramfs) error {
	if err := archive.AddTree("/", "testdata/root"); err != nil {
		return err
	}
	for name, target := range enabled {
		if err := archive.Symlink("etc/systemd/system/"+name, target); err != nil {
			return err
		}
	}
	// Made by a script of Debian's, not by a package.
	if err := archive.Symlink("var/run", "/run"); err != nil {
		return err
	}
	return archive.Symlink("etc/systemd/user/default.target.wants/greeter.service", "/etc/systemd/user/greeter.service")
}
