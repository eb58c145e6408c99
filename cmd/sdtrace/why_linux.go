// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sdtrace/sdtrace/internal/enrich/machines"
	"github.com/sdtrace/sdtrace/internal/enrich/names"
	"github.com/sdtrace/sdtrace/internal/history"
	"github.com/sdtrace/sdtrace/internal/proc"
	"github.com/sdtrace/sdtrace/internal/render"
	"github.com/sdtrace/sdtrace/internal/why"
	"github.com/sdtrace/sdtrace/internal/why/look"
)

// managerFlags say which service manager is meant.
type managerFlags struct {
	user               bool
	machine, container string
	pid                int
}

func (f *managerFlags) register(cmd *cobra.Command) {
	set := cmd.Flags()
	set.BoolVar(&f.user, "user", false, "a unit of your own service manager; under sudo, of the user who called it")
	set.StringVarP(&f.machine, "machine", "M", "", "a unit of the service manager in `MACHINE`")
	set.StringVar(&f.container, "container", "", "a unit of the service manager in the container `ID` or name")
	set.IntVar(&f.pid, "manager", 0, "a unit of the systemd that is process `PID`, in whatever namespace")
}

// find returns the service managers that are meant, the first one first.
func (f *managerFlags) find(cmd *cobra.Command) ([]machines.Manager, error) {
	given := 0
	for _, name := range []string{"user", "machine", "container", "manager"} {
		if cmd.Flags().Changed(name) {
			given++
		}
	}
	if given > 1 {
		return nil, usage(cmd, errors.New("only one of --user, --machine, --container and --manager goes at a time"))
	}
	if cmd.Flags().Changed("manager") {
		m, ok := managerAt(f.pid)
		if !ok {
			return nil, fmt.Errorf("process %d is no service manager, or may not be looked at", f.pid)
		}
		return []machines.Manager{m}, nil
	}
	all := machines.Managers()
	var found []machines.Manager
	switch {
	case f.user:
		found = ofUser(all, caller())
	case f.machine != "":
		found = slices.DeleteFunc(all, func(m machines.Manager) bool { return m.Machine != f.machine && !isContainer(&m, f.machine) })
	case f.container != "":
		found = slices.DeleteFunc(all, func(m machines.Manager) bool { return !isContainer(&m, f.container) })
	default:
		if m, ok := managerAt(1); ok {
			found = append(found, m)
		}
		// A user's unit is looked for, too.
		found = append(found, ofUser(all, caller())...)
	}
	if len(found) > 0 {
		return found, nil
	}
	switch {
	case f.user:
		return nil, fmt.Errorf("no service manager of user %d runs", caller())
	case f.machine != "":
		return nil, fmt.Errorf("no service manager runs in the machine %q", f.machine)
	case f.container != "":
		return nil, fmt.Errorf("no service manager runs in the container %q: ask for the unit of the host that runs it", f.container)
	}
	return nil, errors.New("process 1 is no service manager, or may not be looked at: name one with --manager")
}

func managerAt(pid int) (m machines.Manager, ok bool) {
	p, err := proc.Open(pid)
	if err != nil {
		return m, false
	}
	defer p.Close()
	return machines.ManagerOf(p)
}

// caller is the user who has called this, with sudo or not.
func caller() uint32 {
	if uid, err := strconv.ParseUint(os.Getenv("SUDO_UID"), 10, 32); err == nil && os.Geteuid() == 0 {
		return uint32(uid)
	}
	return uint32(os.Geteuid())
}

func ofUser(all []machines.Manager, uid uint32) (found []machines.Manager) {
	for _, m := range all {
		if m.IsUser() && m.UID == uid {
			found = append(found, m)
		}
	}
	return found
}

// isContainer reports whether a service manager is in the container with an id, the beginning of one, or a name.
func isContainer(m *machines.Manager, container string) bool {
	if m.Container == nil {
		return false
	}
	const idMin = 8
	if len(container) >= idMin && strings.HasPrefix(m.Container.ID, container) || m.Container.ID == container {
		return true
	}
	all := names.Watch()
	defer all.Close()
	id := m.Identity
	name, _ := all.NameWithin(names.KeyOf(&id), namesLimit)
	name.Complete(&id)
	return id.Container.Name == container
}

type whyFlags struct {
	managerFlags
	output, color, read string
	restart, wait       bool
	timeout             time.Duration
}

func newWhyCommand() *cobra.Command {
	var f whyFlags
	cmd := &cobra.Command{
		Use:   "why [flags] [UNIT...]",
		Short: "Say why a unit does not become ready, reload, stay alive or stop",
		Long: `why says of a service in which state it is and what the service manager waits for, what its
processes have said and what became of it, what each has to notify by and where that leads,
and then in one sentence the cause, and what to change.

It asks the service manager, looks at the unit's processes, and takes what a running capture
(sdtrace, as root) has seen of it; without one, what was said is not known, and a cause may be
no more than likely. Without UNIT it looks at all services that hang or have failed.

The exit status is 0 when the unit is healthy, 3 when a problem was found, 4 when the cause
cannot be told or there is no such unit, 1 for a failure, and 2 for a wrong command line.`,
		Example: `  sudo sdtrace why nginx              why is nginx.service not ready?
  sudo sdtrace why                    everything that hangs or has failed
  sudo sdtrace why --restart nginx    restart it, capture what it says, and say how that went
  sudo sdtrace why --wait nginx       the same with its next start, whoever starts it
  sdtrace why -r capture.jsonl nginx  as it was at the end of a capture (sdtrace -o json)
  sdtrace why --user syncthing        a unit of your own service manager
  sudo sdtrace why -M box web         web.service of the machine box
  sudo sdtrace why -o json nginx | jq -r .cause.because`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, units []string) error { return f.run(cmd, units) },
	}
	set := cmd.Flags()
	set.SortFlags = false
	f.register(cmd)
	set.BoolVar(&f.restart, "restart", false, "really restart UNIT (or start it), and answer when its start is decided")
	set.BoolVar(&f.wait, "wait", false, "wait for the next start of UNIT, and answer when that is decided")
	set.DurationVar(&f.timeout, "timeout", 0, "answer after this `TIME` at the latest, with --restart and --wait, as Ctrl-C does")
	set.StringVarP(&f.read, "read", "r", "", "what `FILE` holds of UNIT, written by sdtrace -o json; nothing else is asked")
	set.StringVarP(&f.output, "output", "o", "text", "output format: text or json (a line a unit)")
	set.StringVar(&f.color, "color", "auto", "colour the text: auto, always or never")
	return cmd
}

func (f *whyFlags) run(cmd *cobra.Command, units []string) error {
	if f.output != "text" && f.output != "json" {
		return usage(cmd, fmt.Errorf("unknown output format %q: want text or json", f.output))
	}
	colored, err := isColored(f.color, cmd.OutOrStdout())
	if err != nil {
		return usage(cmd, err)
	}
	for _, unit := range units {
		if err := checkService(unit); err != nil {
			return usage(cmd, err)
		}
	}
	if err := f.check(cmd, units); err != nil {
		return usage(cmd, err)
	}
	answer := &answers{cmd: cmd, json: f.output == "json", text: render.Text{Color: colored}}
	if f.read != "" {
		return answer.fromFile(f.read, units)
	}
	managers, err := f.find(cmd)
	if err != nil {
		return err
	}
	if f.restart || f.wait {
		return f.follow(answer, managers, serviceName(units[0]))
	}
	var lookers []*look.Looker
	for i := range managers {
		l := look.New(cmd.Context(), managers[i])
		defer l.Close()
		lookers = append(lookers, l)
	}
	if len(units) == 0 {
		return answer.troubled(lookers)
	}
	for _, unit := range units {
		if err := answer.unit(lookers, unit); err != nil {
			return err
		}
	}
	return answer.end()
}

// check says what does not go together.
func (f *whyFlags) check(cmd *cobra.Command, units []string) error {
	live := f.restart || f.wait
	switch {
	case f.restart && f.wait:
		return errors.New("--restart and --wait do not go together")
	case live && len(units) != 1:
		return errors.New("--restart and --wait take one UNIT")
	case live && f.read != "":
		return errors.New("--restart and --wait do not go with -r")
	case f.read != "" && len(units) == 0:
		return errors.New("-r takes a UNIT")
	case !live && cmd.Flags().Changed("timeout"):
		return errors.New("--timeout is for --restart and --wait")
	case f.timeout < 0:
		return errors.New("--timeout is negative")
	}
	return nil
}

// fromFile answers by what a file holds.
func (a *answers) fromFile(name string, units []string) error {
	told, err := history.ReadFile(a.cmd.Context(), name)
	if err != nil {
		return err
	}
	for _, unit := range units {
		c, err := look.Recorded(serviceName(unit), told)
		if errors.Is(err, look.ErrNoUnit) {
			a.unknown = true
			fmt.Fprintf(a.cmd.ErrOrStderr(), "sdtrace: %s holds nothing of %s\n", name, serviceName(unit))
			continue
		}
		if err := a.write(c); err != nil {
			return err
		}
	}
	return a.end()
}

// checkService says what is wrong with the name of a service.
func checkService(unit string) error {
	kind := path.Ext(unit)
	others := []string{".socket", ".target", ".device", ".mount", ".automount", ".timer", ".swap", ".path", ".slice", ".scope"}
	switch {
	case unit == "":
		return errors.New("a unit's name is not empty")
	case slices.Contains(others, kind):
		return fmt.Errorf("%s is no service: only services notify", unit)
	case strings.Contains(unit, "/"):
		return fmt.Errorf("%s is no unit's name", unit)
	}
	return nil
}

// serviceName is the whole name of a service that the user may have written without its end.
func serviceName(unit string) string {
	if strings.HasSuffix(unit, ".service") {
		return unit
	}
	return unit + ".service"
}

// answers writes answers, and knows how they were.
type answers struct {
	cmd  *cobra.Command
	json bool
	text render.Text

	asked             int
	problems, unknown bool
}

// end is how the command ends.
func (a *answers) end() error {
	switch {
	case a.problems:
		return &exitError{status: exitNotMet}
	case a.unknown:
		return &exitError{status: exitUnknown}
	}
	return nil
}

// unit answers for the services with a name, or a pattern, of the first service manager that has any.
func (a *answers) unit(lookers []*look.Looker, unit string) error {
	name := serviceName(unit)
	for _, l := range lookers {
		if found, err := a.of(l, name); found || err != nil {
			return err
		}
	}
	a.unknown = true
	where := ""
	if machine := lookers[0].Machine(); machine != "" {
		where = " in " + machine
	}
	fmt.Fprintf(a.cmd.ErrOrStderr(), "sdtrace: there is no unit %s%s\n", name, where)
	return nil
}

// of answers for a unit of a service manager. found is false if there is none.
func (a *answers) of(l *look.Looker, name string) (found bool, err error) {
	all := []string{name}
	if strings.ContainsAny(name, "*?[") || strings.HasSuffix(name, "@.service") {
		if all = l.Matching(strings.Replace(name, "@.service", "@*.service", 1)); len(all) == 0 {
			return false, nil
		}
	}
	for _, one := range all {
		c, err := l.Unit(a.cmd.Context(), one, look.Running)
		switch {
		case errors.Is(err, look.ErrNoUnit):
			return false, nil
		case err != nil:
			return false, err
		}
		if err := a.write(c); err != nil {
			return true, err
		}
	}
	return true, nil
}

// troubled answers for all services that hang or have failed.
func (a *answers) troubled(lookers []*look.Looker) error {
	for _, l := range lookers {
		if silent := l.Silent(); silent != nil {
			if err := a.write(silent); err != nil {
				return err
			}
		}
		for _, name := range l.Troubled() {
			if _, err := a.of(l, name); err != nil {
				return err
			}
		}
	}
	if a.asked == 0 {
		fmt.Fprintln(a.cmd.ErrOrStderr(), "sdtrace: no service hangs, and none has failed")
	}
	return a.end()
}

func (a *answers) write(c *why.Case) (err error) {
	found := why.Explain(c)
	out := a.cmd.OutOrStdout()
	if a.json {
		_, err = out.Write(why.AppendJSON(nil, c, found))
	} else {
		var b []byte
		if a.asked > 0 {
			b = append(b, '\n')
		}
		_, err = out.Write(a.text.AppendWhy(b, c, found))
	}
	a.asked++
	switch {
	case len(found) > 0 && !found[0].Note:
		a.problems = true
	case !c.IsWell():
		a.unknown = true
	}
	return err
}
