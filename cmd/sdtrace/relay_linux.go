// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/pkg/relay"
)

// relayFlags is what a relay is asked for on the command line.
type relayFlags struct {
	listen       []string
	upstream     string
	containerPID []string
	cgroup       []string
	netNS        []string
	access       string
	directory    string
	inside       string
	bundle       string
	policy       []string
	policyFile   string
	printPolicy  bool
	log          bool
	noFDs        bool
	adopt        bool
}

func newRelayCommand() *cobra.Command {
	var flags relayFlags
	cmd := &cobra.Command{
		Use:   "relay [flags] -- COMMAND [ARG…]\n  sdtrace relay [flags] --listen [NAME=]ADDRESS…",
		Short: "Forward the notifications of a container to its host",
		Long: `sdtrace relay makes a notify socket for a container and forwards what the
container sends to the host's notify socket: all of the protocol, checked against
a policy, and translated from the container's namespaces into the host's.

With COMMAND it makes the socket in a directory of its own, starts COMMAND with
NOTIFY_SOCKET set to it, forwards signals, and ends as COMMAND does: with its exit
status, by its signal. COMMAND is anything that starts a container and waits for
it, or the program itself. That COMMAND ends before READY=1, unasked, is an error.

With --listen it runs beside a container that something else starts, until
SIGTERM, or until the process given by --container-pid has exited. Several
--listen make several containers one unit: it is ready when all of them are, its
watchdog is fed when all of them are alive.

What a policy denies is reported once for each kind on stderr; --log reports
every decision.`,
		Example: `  # in ExecStart= of a Type=notify service
  sdtrace relay --adopt --directory /run/web/notify --inside /run/notify -- \
      docker run --rm -v /run/web/notify:/run/notify:ro -e NOTIFY_SOCKET image
  sdtrace relay --bundle /srv/web -- runc run --bundle /srv/web web

  # beside a container
  sdtrace relay --listen /run/web/notify.sock --container-pid 4711
  sdtrace relay --listen @web --netns /run/netns/web

  # two containers, one unit
  sdtrace relay --listen web=/run/pod/web/notify.sock --listen db=/run/pod/db/notify.sock

  # what may pass
  sdtrace relay --policy 'EXTEND_TIMEOUT_USEC clamp max=30s' --policy 'X_* allow' -- ./app
  sdtrace relay --print-policy`,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return flags.run(cmd, args)
		},
	}
	flags.register(cmd)
	return cmd
}

func (f *relayFlags) register(cmd *cobra.Command) {
	set := cmd.Flags()
	set.SortFlags = false
	set.SetInterspersed(false) // what follows COMMAND is its own
	set.StringArrayVar(&f.listen, "listen", nil, "`[NAME=]ADDRESS` to make the socket at: a path, @abstract, or fd:N;\nwithout COMMAND the default is the sockets that systemd passes")
	set.StringVar(&f.upstream, "upstream", "", "the host's notify `ADDRESS` (default $NOTIFY_SOCKET)")
	set.StringArrayVar(&f.containerPID, "container-pid", nil, "`[NAME=]PID` of a process of the container: its pid namespace may notify")
	set.StringArrayVar(&f.cgroup, "cgroup", nil, "`[NAME=]PATH` of the container's control group: it and all below may notify")
	set.StringArrayVar(&f.netNS, "netns", nil, "`[NAME=]PATH` of the container's network namespace: processes in it may\nnotify, and an @abstract address is made in it")
	set.StringVar(&f.access, "access", "all", "which of its processes may notify, `MODE`: main, exec or all")
	set.StringVar(&f.directory, "directory", "", "`DIR` to make notify.sock in, for COMMAND (default a private one)")
	set.StringVar(&f.inside, "inside", "", "where COMMAND mounts that directory in the container, `DIR`")
	set.BoolVar(&f.adopt, "adopt", false,
		"take the first other pid namespace that somebody sends from for the container's:\na daemon's (docker's) does not descend from COMMAND")
	set.StringVar(&f.bundle, "bundle", "", "`DIR` of the OCI bundle that COMMAND runs: its config.json gets the mount")
	set.StringArrayVar(&f.policy, "policy", nil, "`RULE` for a key, such as 'STATUS allow max-bytes=200' (see --print-policy)")
	set.StringVar(&f.policyFile, "policy-file", "", "`FILE` of such rules, one a line; --policy comes after it")
	set.BoolVar(&f.noFDs, "no-fds", false, "take no file descriptors from the container: no barriers, no file descriptor store")
	set.BoolVar(&f.printPolicy, "print-policy", false, "print the policy in force and exit")
	set.BoolVar(&f.log, "log", false, "every decision, one line each, on stderr")
}

func (f *relayFlags) run(cmd *cobra.Command, command []string) error {
	policy, err := f.readPolicy()
	if err != nil {
		return usage(cmd, err)
	}
	if f.printPolicy {
		fmt.Fprint(cmd.OutOrStdout(), policy.String())
		return nil
	}
	if err := cmp.Or(checkNotEmpty(cmd), f.check(command)); err != nil {
		return usage(cmd, err)
	}
	config := relay.Config{Policy: policy, NoFDs: f.noFDs}
	if config.Upstream, err = f.upstreamAddress(); err != nil {
		return usage(cmd, err)
	}
	log := newDecisionLog(cmd.ErrOrStderr(), f.log)
	defer log.close()
	config.OnDecision = log.note
	if len(command) > 0 {
		if !f.adopt && len(f.cgroup) == 0 && len(f.netNS) == 0 {
			log.stranger = "what does not descend from COMMAND is not of the container: if a daemon has started it, " +
				"as docker does, see --adopt"
		}
		return f.runCommand(cmd.Context(), config, command, log)
	}
	if config.Members, err = f.members(); err != nil {
		return usage(cmd, err)
	}
	for _, m := range config.Members {
		if m.File == nil {
			continue
		}
		if told, err := unix.GetsockoptInt(int(m.File.Fd()), unix.SOL_SOCKET, unix.SO_PASSCRED); err == nil && told == 0 {
			log.say("of what was sent to " + m.File.Name() + " until now it is not known who sent it, so that it is denied: " +
				"a .socket unit needs PassCredentials=yes")
		}
	}
	return f.runBeside(cmd.Context(), config, log)
}

// checkNotEmpty finds a flag that was given without a value, which would mean as much as none: that everybody may notify, say.
func checkNotEmpty(cmd *cobra.Command) (err error) {
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		values := []string{flag.Value.String()}
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, text := range values {
			if _, value := splitName(text); value == "" && err == nil {
				err = fmt.Errorf("--%s %q: a value is missing", flag.Name, text)
			}
		}
	})
	return err
}

// check finds flags that make no sense, by themselves or together.
func (f *relayFlags) check(command []string) error {
	if _, err := relay.ParseAccess(f.access); err != nil {
		return fmt.Errorf("--access: %w", err)
	}
	for _, text := range f.netNS {
		_, path := splitName(text)
		if !strings.Contains(path, "/") {
			return fmt.Errorf("--netns %s: want a path such as /run/netns/web or /proc/PID/ns/net", text)
		}
		if _, err := findNetNS(path); err != nil {
			return fmt.Errorf("--netns: %w", err)
		}
	}
	switch {
	case len(command) == 0 && (f.directory != "" || f.inside != "" || f.bundle != ""):
		return errors.New("--directory, --inside and --bundle need a COMMAND")
	case f.adopt && len(command) == 0:
		return errors.New("--adopt needs a COMMAND: without one, every process that can reach the socket may notify")
	case f.adopt && (len(f.cgroup) > 0 || len(f.netNS) > 0):
		return errors.New("--adopt is for a container that neither --cgroup nor --netns names")
	case len(command) > 0 && len(f.listen) > 0:
		return errors.New("--listen is for running without COMMAND; COMMAND's socket is made in --directory")
	case len(command) > 0 && len(f.containerPID) > 0:
		return errors.New("--container-pid is for running without COMMAND: the container is not there yet")
	case f.inside != "" && f.bundle != "":
		return errors.New("--bundle mounts the directory itself: --inside says where COMMAND does it")
	case f.inside != "" && !filepath.IsAbs(f.inside):
		return fmt.Errorf("--inside %s is not an absolute path", f.inside)
	}
	return nil
}

func (f *relayFlags) readPolicy() (relay.Policy, error) {
	policy := relay.DefaultPolicy()
	if f.policyFile != "" {
		file, err := os.Open(f.policyFile)
		if err != nil {
			return policy, fmt.Errorf("reading the policy: %w", err)
		}
		defer file.Close()
		if err := policy.Read(file); err != nil {
			return policy, fmt.Errorf("%s: %w", f.policyFile, err)
		}
	}
	for _, rule := range f.policy {
		if err := policy.Set(rule); err != nil {
			return policy, fmt.Errorf("--policy: %w", err)
		}
	}
	return policy, nil
}

func (f *relayFlags) upstreamAddress() (relay.Address, error) {
	text := f.upstream
	if text == "" {
		text = os.Getenv("NOTIFY_SOCKET")
	}
	if text == "" {
		return relay.Address{}, errors.New("nowhere to forward to: NOTIFY_SOCKET is not set, and there is no --upstream")
	}
	return relay.ParseAddress(text)
}

// members reads who is to be relayed for when there is no COMMAND.
func (f *relayFlags) members() ([]relay.Member, error) {
	access, err := relay.ParseAccess(f.access)
	if err != nil {
		return nil, err
	}
	members, err := f.sockets()
	if err != nil {
		return nil, err
	}
	for i := range members {
		members[i].Access = access
	}
	find := func(flag, text string) (*relay.Member, string, error) {
		name, value := splitName(text)
		i := slices.IndexFunc(members, func(m relay.Member) bool { return m.Name == name })
		if i < 0 {
			return nil, "", fmt.Errorf("--%s %s: no --listen is for %q", flag, text, name)
		}
		return &members[i], value, nil
	}
	for _, text := range f.containerPID {
		m, value, err := find("container-pid", text)
		if err != nil {
			return nil, err
		}
		if m.Container.PID, err = strconv.Atoi(value); err != nil || m.Container.PID <= 0 {
			return nil, fmt.Errorf("--container-pid %s is not a process id", text)
		}
	}
	for _, text := range f.cgroup {
		m, value, err := find("cgroup", text)
		if err != nil {
			return nil, err
		}
		m.Container.Cgroup = value
	}
	for _, text := range f.netNS {
		m, value, err := find("netns", text)
		if err != nil {
			return nil, err
		}
		m.Container.NetNS = value
	}
	for i := range members {
		setListenNetNS(&members[i])
	}
	return members, nil
}

// sockets reads --listen, and without any what systemd's socket activation brings.
func (f *relayFlags) sockets() ([]relay.Member, error) {
	var members []relay.Member
	for _, text := range f.listen {
		m, err := parseListen(text)
		if err != nil {
			return nil, err
		}
		members = append(members, m)
	}
	if len(members) == 0 {
		for _, file := range activation.Files(true) {
			members = append(members, relay.Member{Name: file.Name(), File: file})
		}
		if len(members) == 1 {
			members[0].Name = ""
		}
	}
	if len(members) == 0 {
		return nil, errors.New("neither COMMAND nor --listen")
	}
	seen := map[string]bool{}
	for _, m := range members {
		if seen[m.Name] || (m.Name == "" && len(members) > 1) {
			return nil, errors.New("several --listen need a name each: --listen NAME=ADDRESS")
		}
		seen[m.Name] = true
	}
	return members, nil
}

func parseListen(text string) (relay.Member, error) {
	name, address := splitName(text)
	number, isFD := strings.CutPrefix(address, "fd:")
	if !isFD {
		if _, err := relay.ParseAddress(address); err != nil {
			return relay.Member{}, fmt.Errorf("--listen %s: %w", text, err)
		}
		return relay.Member{Name: name, Listen: address}, nil
	}
	fd, err := strconv.Atoi(number)
	if err != nil || fd < 0 {
		return relay.Member{}, fmt.Errorf("--listen %s: want fd:N", text)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return relay.Member{}, fmt.Errorf("--listen %s: %w", text, err)
	}
	return relay.Member{Name: name, File: os.NewFile(uintptr(fd), address)}, nil
}

// splitName takes NAME= off a flag's value. A path or an address has no name
// in front of it unless there is one.
func splitName(text string) (name, value string) {
	name, value, found := strings.Cut(text, "=")
	if !found || name == "" || strings.ContainsAny(name, "/@:") {
		return "", text
	}
	return name, value
}

// setListenNetNS puts an abstract address into the container's network namespace.
func setListenNetNS(m *relay.Member) {
	switch {
	case !strings.HasPrefix(m.Listen, "@"):
	case m.Container.NetNS != "":
		m.ListenNetNS = m.Container.NetNS
	case m.Container.PID != 0:
		m.ListenNetNS = fmt.Sprintf("/proc/%d/ns/net", m.Container.PID)
	}
}

// runBeside relays until the context ends, or until all containers that are
// known by a process have ended.
func (f *relayFlags) runBeside(ctx context.Context, config relay.Config, log *decisionLog) error {
	ended, err := awaitProcesses(config.Members)
	if err != nil {
		return err
	}
	r, err := relay.New(config)
	if err != nil {
		return err
	}
	defer r.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var exited bool
	if ended != nil {
		go func() {
			select {
			case <-ended:
				exited = true
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	err = r.Run(ctx)
	select {
	case <-r.Ready():
		return sayUndelivered(log, err)
	default:
	}
	if err != nil {
		return err
	}
	if exited {
		return errors.New("the container has exited before it said READY=1")
	}
	return nil
}

// awaitProcesses returns a channel that is closed when the processes by which
// the containers are known have all exited, or nil if one is not known so.
func awaitProcesses(members []relay.Member) (<-chan struct{}, error) {
	var pidfds []int
	for _, m := range members {
		if m.Container.PID == 0 {
			return nil, nil
		}
		fd, err := unix.PidfdOpen(m.Container.PID, 0)
		if err != nil {
			return nil, fmt.Errorf("--container-pid %d: %w", m.Container.PID, err)
		}
		pidfds = append(pidfds, fd)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for _, fd := range pidfds {
			for {
				n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
				if n > 0 {
					break
				}
			}
		}
	}()
	return ended, nil
}
