// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/relay"
	"github.com/sdtrace/sdtrace/pkg/relay/oci"
)

// The exit statuses of programs that start another one (env(1), timeout(1)).
const (
	exitCannotRun = 126
	exitNotFound  = 127
	exitSignal    = 128 // plus the signal
)

// runCommand relays for as long as the command runs.
func (f *relayFlags) runCommand(started context.Context, config relay.Config, command []string, log *decisionLog) error {
	access, err := relay.ParseAccess(f.access)
	if err != nil {
		return err
	}
	program, err := exec.LookPath(command[0])
	if err != nil {
		return cannotStart(command[0], err)
	}
	ignored := ignoredSignals()
	// From now on, so that none is missed: what comes before the command runs
	// is forwarded when it does.
	signals := make(chan os.Signal, 64)
	signal.Notify(signals) // to the end: one that comes late does not take the place of COMMAND's status

	dir, err := f.makeDirectory()
	if err != nil {
		return err
	}
	defer dir.remove()
	member := relay.Member{Listen: filepath.Join(dir.path, relay.SocketName), Access: access}
	closed := isClosed(dir.path)
	member.Container = relay.Container{Descendants: true, Adopt: f.adopt, Closed: closed}
	if f.adopt && !closed {
		return fmt.Errorf("--adopt: other users can get to %s: close a directory above it to its group and to others, "+
			"as RuntimeDirectoryMode=0700 does", dir.path)
	}
	for _, flag := range []struct {
		values []string
		field  *string
	}{{f.cgroup, &member.Container.Cgroup}, {f.netNS, &member.Container.NetNS}} {
		if len(flag.values) > 0 {
			*flag.field = flag.values[len(flag.values)-1]
			member.Container.Descendants, member.Container.Closed = false, false
		}
	}
	config.Members = []relay.Member{member}
	r, err := relay.New(config)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := f.prepareBundle(dir.path); err != nil {
		return err
	}
	// Containers whose starter forks and exits stay our descendants.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming the reaper of descendants: %w", err)
	}
	pid, err := f.start(program, command, dir.path, config.Policy, ignored)
	if err != nil {
		return cannotStart(command[0], err)
	}
	// Held before it can be reaped, as its number may be another one's then, and for as long as there are signals.
	held, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		reap(pid)
		return fmt.Errorf("holding %s: %w", command[0], err)
	}
	r.SetCommand(pid)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	var stopped atomic.Bool
	go forwardSignals(started, signals, pid, held, func(by syscall.Signal) {
		stopped.Store(true)
		if by != syscall.SIGHUP { // which asks many to reload
			r.Stopping()
		}
	})

	status := reap(pid)
	cancel()
	err = <-done
	select {
	case <-r.Ready():
		err = sayUndelivered(log, err)
	default:
		// Unless it was asked to end, and did.
		if !stopped.Load() || status.ExitStatus() != 0 {
			err = errors.Join(fmt.Errorf("%s %s before it said READY=1", command[0], describe(status)), err)
		}
	}
	return exitWith(status, err)
}

func cannotStart(name string, err error) error {
	status := exitCannotRun
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		status = exitNotFound
	}
	// Without what the libraries put around it: the name is said already.
	var lookup *exec.Error
	if errors.As(err, &lookup) {
		err = lookup.Err
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return &exitError{status: status, err: fmt.Errorf("starting %s: %w", name, err)}
}

// exitWith passes the command's exit status on. An error of our own shows in it
// only when the command says that all is well.
func exitWith(status unix.WaitStatus, err error) error {
	code := status.ExitStatus()
	var killer syscall.Signal
	if status.Signaled() {
		killer = status.Signal()
		code = exitSignal + int(killer)
	}
	switch {
	case code != 0:
		return &exitError{status: code, signal: killer, err: err}
	case err != nil:
		return err
	}
	return nil
}

func describe(status unix.WaitStatus) string {
	if status.Signaled() {
		return "was killed by " + unix.SignalName(status.Signal())
	}
	return "exited with status " + strconv.Itoa(status.ExitStatus())
}

// start starts the command through ourselves, as execCommand: only the process
// itself can know its number before the command runs.
func (f *relayFlags) start(program string, command []string, dir string, policy relay.Policy, ignored string) (pid int, err error) {
	files := []uintptr{0, 1, 2}
	env := commandEnv(os.Environ())
	switch {
	case f.bundle != "":
		// The container has it from its config.json; the runtime must not put a
		// relay of its own in between.
	case f.inside != "":
		env = append(env, "NOTIFY_SOCKET="+filepath.Join(f.inside, relay.SocketName))
		if os.Getenv("WATCHDOG_USEC") != "" {
			env = append(env, "WATCHDOG_PID=1")
		}
	default:
		env = append(env, "NOTIFY_SOCKET="+filepath.Join(dir, relay.SocketName))
		if os.Getenv("WATCHDOG_USEC") != "" {
			env = append(env, "WATCHDOG_PID="+ownPID)
		}
	}
	if policy.Rule(relay.KeyFDStore).Action != relay.Deny {
		passed := activation.Files(true)
		var names []string
		for _, file := range passed {
			files = append(files, file.Fd())
			names = append(names, file.Name())
		}
		if len(passed) > 0 {
			env = append(env, "LISTEN_FDS="+strconv.Itoa(len(passed)), "LISTEN_PID="+ownPID,
				"LISTEN_FDNAMES="+strings.Join(names, ":"))
		}
	}
	args := append([]string{"sdtrace", execCommandName, ignored, program}, command...)
	return syscall.ForkExec("/proc/self/exe", args, &syscall.ProcAttr{Env: env, Files: files})
}

// cameBefore is the signal that has ended a context of [signal.NotifyContext].
func cameBefore(ctx context.Context) os.Signal {
	if strings.HasPrefix(context.Cause(ctx).Error(), syscall.SIGINT.String()) {
		return syscall.SIGINT
	}
	return syscall.SIGTERM
}

// ignoredSignals names what was ignored when we were started, as by nohup(1) or by a shell for what runs in the background: the
// command is to ignore it, too. Of other signals Go's runtime does not tell.
func ignoredSignals() string {
	var names []string
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(s) {
			names = append(names, unix.SignalName(s))
		}
	}
	return strings.Join(names, ",")
}

// commandEnv is the environment without what is about us and our own socket.
func commandEnv(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(assignment string) bool {
		name, _, _ := strings.Cut(assignment, "=")
		switch name {
		case "NOTIFY_SOCKET", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES", "FDSTORE":
			return true
		}
		return false
	})
}

// ownPID stands for the number of the process that has it in its environment.
const ownPID = "@self@"

func newExecCommand() *cobra.Command {
	return &cobra.Command{
		Use:                execCommandName,
		Hidden:             true,
		DisableFlagParsing: true,
		SilenceErrors:      true,
		SilenceUsage:       true,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) < 3 {
				return errors.New("this is for sdtrace relay to call")
			}
			for name := range strings.SplitSeq(args[0], ",") {
				if number := unix.SignalNum(name); number != 0 {
					signal.Ignore(number)
				}
			}
			args = args[1:]
			env := os.Environ()
			for i, assignment := range env {
				if name, value, _ := strings.Cut(assignment, "="); value == ownPID {
					env[i] = name + "=" + strconv.Itoa(os.Getpid())
				}
			}
			return cannotStart(args[1], syscall.Exec(args[0], args[1:], env))
		},
	}
}

// forwardSignals passes every signal on that is not about ourselves, and one that has ended the context started before signals
// was told of any. stopping is called before one that asks to end.
func forwardSignals(started context.Context, signals <-chan os.Signal, pid, pidfd int, stopping func(by syscall.Signal)) {
	asked := false
	pass := func(s os.Signal) {
		number, ok := s.(syscall.Signal)
		if !ok {
			return
		}
		switch number {
		case syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM:
			asked = asked || number != syscall.SIGHUP
			stopping(number)
		}
		switch number {
		case syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPIPE:
			return // of our own runtime and children
		case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGWINCH, syscall.SIGTTIN, syscall.SIGTTOU:
			// The terminal sends it to the command as well, unless that has gone to another process group.
			own := unix.Getpgrp()
			group, err := unix.Getpgid(pid)
			if to, ok := terminalGroup(); ok && to == own && err == nil && group == own {
				return
			}
		}
		_ = unix.PidfdSendSignal(pidfd, number, nil, 0) // ESRCH: it has ended
	}
	ended := started.Done()
	for {
		select {
		case s := <-signals:
			pass(s)
		case <-ended:
			ended = nil
			signal.Stop(make(chan os.Signal)) // returns when a signal that is being handed out is
			for len(signals) > 0 {
				pass(<-signals)
			}
			if !asked {
				pass(cameBefore(started))
			}
		}
	}
}

// terminalGroup is the process group to which the terminal sends its signals, if we have one (tty(4)).
func terminalGroup() (group int, ok bool) {
	tty, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(tty)
	group, err = unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	return group, err == nil
}

// reap waits for all children that there are, until the command has ended. When a terminal stops the command, as by Ctrl-Z,
// the relay stops, too, so that a shell has its terminal back; who continues it continues both.
func reap(pid int) unix.WaitStatus {
	for {
		var status unix.WaitStatus
		ended, err := unix.Wait4(-1, &status, unix.WUNTRACED, nil)
		if ended == pid && status.Stopped() {
			if _, ok := terminalGroup(); ok {
				_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
			}
			continue
		}
		if errors.Is(err, unix.ECHILD) || (ended == pid && (status.Exited() || status.Signaled())) {
			return status
		}
	}
}

// directory is where the socket is made.
type directory struct {
	path  string
	owned string // to be removed at the end; "" if it was there before
}

func (d directory) remove() {
	if d.owned != "" {
		_ = os.Remove(d.path)
		_ = os.Remove(d.owned)
	}
}

// makeDirectory makes the directory that containers mount: readable by every
// user in it, in a private one unless the user names it.
func (f *relayFlags) makeDirectory() (directory, error) {
	if f.directory != "" {
		path, err := filepath.Abs(f.directory)
		if err != nil {
			return directory{}, err
		}
		_, err = os.Stat(path)
		d := directory{path: path}
		if errors.Is(err, fs.ErrNotExist) {
			d.owned = path
			// For every user of the container, whatever the umask.
			err = errors.Join(os.MkdirAll(path, 0o755), os.Chmod(path, 0o755))
		}
		return d, err
	}
	base, err := runtimeDirectory()
	if err != nil {
		return directory{}, err
	}
	removeLeftovers(base)
	private, err := os.MkdirTemp(base, "relay-")
	if err != nil {
		return directory{}, fmt.Errorf("making a directory for the socket: %w", err)
	}
	d := directory{path: filepath.Join(private, "notify"), owned: private}
	if err := os.Mkdir(d.path, 0o755); err != nil {
		return directory{}, fmt.Errorf("making a directory for the socket: %w", err)
	}
	return d, os.Chmod(d.path, 0o755) // whatever the umask
}

// removeLeftovers removes the directories of relays that were killed: nobody reads from their sockets.
func removeLeftovers(base string) {
	sockets, _ := filepath.Glob(filepath.Join(base, "relay-*", "notify", relay.SocketName)) // the pattern is right
	for _, socket := range sockets {
		conn, err := net.Dial("unixgram", socket)
		if err == nil {
			conn.Close()
		} else if errors.Is(err, unix.ECONNREFUSED) {
			_ = os.Remove(socket)
			directory{path: filepath.Dir(socket), owned: filepath.Dir(filepath.Dir(socket))}.remove()
		}
	}
}

func runtimeDirectory() (string, error) {
	if dirs := os.Getenv("RUNTIME_DIRECTORY"); dirs != "" {
		first, _, _ := strings.Cut(dirs, ":") // systemd.exec(5)
		return first, nil
	}
	base := "/run/sdtrace"
	if user := os.Getenv("XDG_RUNTIME_DIR"); os.Getuid() != 0 && user != "" {
		base = filepath.Join(user, "sdtrace")
	}
	if err := os.MkdirAll(base, 0o700); err != nil {
		return "", fmt.Errorf("making a directory for the socket: %w (see --directory)", err)
	}
	return base, nil
}

// isClosed reports whether a directory on the way keeps everybody else out: it is root's or ours, and neither its group nor others
// may search it. With an ACL the mode's group is what all named users and groups can have at most (acl(5)).
func isClosed(path string) bool {
	path, err := filepath.EvalSymlinks(path)
	for ; err == nil; path = filepath.Dir(path) {
		var stat unix.Stat_t
		if err = unix.Stat(path, &stat); err == nil && stat.Mode&0o011 == 0 && (stat.Uid == 0 || stat.Uid == uint32(os.Geteuid())) {
			return true
		}
		if path == "/" {
			return false
		}
	}
	return false
}

// prepareBundle writes the mount and the environment into the bundle's config.json.
func (f *relayFlags) prepareBundle(dir string) error {
	if f.bundle == "" {
		return nil
	}
	return oci.SetupBundle(f.bundle, oci.SpecOptions{Directory: dir, WatchdogUSec: os.Getenv("WATCHDOG_USEC")})
}
