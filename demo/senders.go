// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"debug/elf"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// sender is a program that notifies, and what has to be seen of it.
type sender struct {
	name string
	run  func(ctx context.Context, notifySocket string) error
	want []datagram
}

// datagram is what identifies one of a sender's datagrams in the record.
type datagram struct {
	payload string
	// comm is the sender's, empty for any.
	comm string
	// container is the id of the container it has to come from, or empty.
	container string
}

func (d datagram) String() string {
	if d.comm == "" {
		return fmt.Sprintf("%q", d.payload)
	}
	return fmt.Sprintf("%q from %s", d.payload, d.comm)
}

func (d datagram) in(seen []event) bool {
	for _, e := range seen {
		if (d.comm == "" || e.Sender.Comm == d.comm) && e.Payload == d.payload && strings.Contains(e.Sender.Container.ID, d.container) {
			return true
		}
	}
	return false
}

// prepareSenders builds in dir what has to be built, before a capture waits
// for it.
func prepareSenders(ctx context.Context, dir string) ([]sender, error) {
	program := filepath.Join(dir, "program")
	if err := copyStatic(ctx, program); err != nil {
		return nil, err
	}
	goService := filepath.Join(dir, "go-service")
	if err := os.Link(program, goService); err != nil {
		return nil, fmt.Errorf("naming the Go service: %w", err)
	}
	runc, err := runcSender(dir, program)
	if err != nil {
		return nil, err
	}
	senders := []sender{
		{
			name: "systemd-notify",
			run: func(ctx context.Context, to string) error {
				return execute(ctx, to, nil, "systemd-notify", "--ready", "--status=Accepting connections")
			},
			want: []datagram{
				{comm: "systemd-notify", payload: "READY=1\nSTATUS=Accepting connections"},
				{comm: "systemd-notify", payload: "BARRIER=1"},
			},
		},
		{
			name: "go-systemd",
			run: func(ctx context.Context, to string) error {
				return execute(ctx, to, []string{roleEnv + "=service"}, goService)
			},
			want: serviceDatagrams("go-service", ""),
		},
		runc,
	}
	if python, err := exec.LookPath("python3"); err == nil {
		const script = `import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ["NOTIFY_SOCKET"])
s.sendall(b"WATCHDOG=1\nSTATUS=Python is alive")`
		senders = append(senders, sender{
			name: "Python's socket",
			run: func(ctx context.Context, to string) error {
				return execute(ctx, to, nil, python, "-c", script)
			},
			// What lies in PATH may be a wrapper, so its comm says nothing.
			want: []datagram{{payload: "WATCHDOG=1\nSTATUS=Python is alive"}},
		})
	}
	return senders, nil
}

// execute runs a program with NOTIFY_SOCKET set.
func execute(ctx context.Context, notifySocket string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(append(os.Environ(), "NOTIFY_SOCKET="+notifySocket), env...)
	cmd.WaitDelay = 2 * time.Second
	output, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w %s", err, strings.TrimSpace(string(output)))
	}
	return nil
}

//go:embed config.json
var containerConfig []byte

// runcSender makes a bundle whose file system holds one program, the web
// application. runc gives it a socket of its own and sends READY=1 on.
func runcSender(dir, program string) (sender, error) {
	bundle := filepath.Join(dir, "bundle")
	rootfs := filepath.Join(bundle, "rootfs")
	if err := os.MkdirAll(rootfs, 0o755); err != nil {
		return sender{}, fmt.Errorf("making the container's file system: %w", err)
	}
	if err := os.Link(program, filepath.Join(rootfs, "webapp")); err != nil {
		return sender{}, fmt.Errorf("making the container's file system: %w", err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), containerConfig, 0o644); err != nil {
		return sender{}, fmt.Errorf("making the container: %w", err)
	}
	var random [32]byte
	if _, err := rand.Read(random[:]); err != nil {
		return sender{}, fmt.Errorf("making the container's id: %w", err)
	}
	id := hex.EncodeToString(random[:])
	// Short, as with the id and notify.sock it has to fit into sun_path.
	state := filepath.Join(dir, "r")
	return sender{
		name: "container of runc",
		run: func(ctx context.Context, to string) error {
			err := execute(ctx, to, nil, "runc", "--root", state, "run", "--bundle", bundle, id)
			return errors.Join(err, removeContainer(state, id))
		},
		want: append(serviceDatagrams("webapp", id), datagram{comm: "runc", payload: "READY=1\n"}),
	}, nil
}

// removeContainer removes what runc left when it was killed: normally nothing.
func removeContainer(state, id string) error {
	if _, err := os.Stat(filepath.Join(state, id)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if output, err := exec.CommandContext(ctx, "runc", "--root", state, "delete", "--force", id).CombinedOutput(); err != nil {
		return fmt.Errorf("removing the container: %w %s", err, output)
	}
	return nil
}

// roleEnv makes this binary play a sender.
const roleEnv = "SDTRACE_DEMO_ROLE"

var serviceMessages = []string{"STATUS=Loading", daemon.SdNotifyReady + "\nSTATUS=Serving on port 8080", daemon.SdNotifyStopping}

func serviceDatagrams(comm, container string) []datagram {
	var all []datagram
	for _, message := range serviceMessages {
		all = append(all, datagram{comm: comm, payload: message, container: container})
	}
	return all
}

func play(role string) error {
	if role != "service" {
		return errors.New("no such role")
	}
	for _, message := range serviceMessages {
		sent, err := daemon.SdNotify(false, message)
		if err != nil {
			return err
		}
		if !sent {
			return errors.New("NOTIFY_SOCKET is not set")
		}
	}
	return nil
}

// copyStatic puts this program to the path to, in a form that runs without any
// library.
func copyStatic(ctx context.Context, to string) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding the demo's program: %w", err)
	}
	static, err := isStatic(exe)
	if err != nil {
		return fmt.Errorf("reading the demo's program: %w", err)
	}
	if !static {
		build := exec.CommandContext(ctx, "go", "build", "-o", to, "github.com/sdtrace/sdtrace/demo")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if output, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("building the senders: %w %s", err, output)
		}
		return nil
	}
	content, err := os.ReadFile(exe)
	if err != nil {
		return fmt.Errorf("reading the demo's program: %w", err)
	}
	if err := os.WriteFile(to, content, 0o755); err != nil {
		return fmt.Errorf("copying the demo's program: %w", err)
	}
	return nil
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
