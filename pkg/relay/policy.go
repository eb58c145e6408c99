// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/sdtrace/sdtrace/internal/timespan"
)

// Action is what a rule does with the assignments of a key.
type Action uint8

// The actions. Which of them a key can have is said at [Policy.Set].
const (
	Deny    Action = iota // do not forward
	Allow                 // forward as it is, if it is valid
	Rewrite               // forward what it means outside of the container
	Clamp                 // forward at most the limits of the rule
)

var actionNames = [...]string{"deny", "allow", "rewrite", "clamp"}

// String returns the action in lower case, as in a rule.
func (a Action) String() string { return nameOf(actionNames[:], int(a), "Action") }

// Rule is what a policy says about one key. A limit that is 0 is none.
type Rule struct {
	Action   Action        // what is done with the assignments of the key
	Max      time.Duration // EXTEND_TIMEOUT_USEC, WATCHDOG_USEC: the longest value that is forwarded
	Budget   time.Duration // EXTEND_TIMEOUT_USEC: how far the deadline of a phase can be moved from when that was first asked for
	Every    time.Duration // STATUS: at most one in that time, the last that there was
	MaxBytes int           // STATUS: the longest text of the container, in bytes of UTF-8
	MaxFDs   int           // FDSTORE: how many file descriptors can be stored at a time
	Prefix   string        // STATUS, FDNAME: put before what the container says
}

// Policy says, key by key, what a container may tell the host. The zero value
// denies everything.
type Policy struct{ rules [numKeys]Rule }

// defaultRules are those of the keys that are not denied.
const defaultRules = `
BARRIER allow
BUSERROR allow
ERRNO allow
EXIT_STATUS allow
EXTEND_TIMEOUT_USEC clamp max=2m budget=10m
FDNAME allow
FDPOLL allow
MAINPID rewrite
MAINPIDFD rewrite
MAINPIDFDID rewrite
MONOTONIC_USEC rewrite
READY allow
RELOADING allow
STATUS allow
STOPPING rewrite
VARLINKERROR allow
WATCHDOG allow
`

// DefaultPolicy forwards what a service says about itself, translates what
// depends on a namespace, limits how long the host can be made to wait, and
// denies what changes the settings of the unit or keeps file descriptors.
func DefaultPolicy() Policy {
	var p Policy
	if err := p.Read(strings.NewReader(defaultRules)); err != nil {
		panic(err)
	}
	return p
}

// Rule returns the rule of a key.
func (p Policy) Rule(k Key) Rule { return p.rules[k] }

// option is an action that a key can have, and the arguments that go with it.
type option struct {
	action    Action
	arguments []string
}

var (
	onlyAllow   = []option{{action: Allow}}
	onlyRewrite = []option{{action: Rewrite}}
)

// options of the keys; every key can be denied.
var options = [numKeys][]option{
	KeyBarrier:       onlyAllow,
	KeyBusError:      onlyAllow,
	KeyErrno:         onlyAllow,
	KeyExitStatus:    onlyAllow,
	KeyExtendTimeout: {{action: Allow}, {Clamp, []string{"max", "budget"}}},
	KeyFDName:        {{Allow, []string{"prefix"}}},
	KeyFDPoll:        onlyAllow,
	KeyFDStore:       {{Allow, []string{"max-fds"}}},
	KeyFDStoreRemove: onlyAllow,
	// The number of a process means another one, or none, on the host.
	KeyMainPID:      onlyRewrite,
	KeyMainPIDFD:    onlyRewrite,
	KeyMainPIDFDID:  onlyRewrite,
	KeyMonotonic:    onlyRewrite,
	KeyNotifyAccess: onlyAllow,
	KeyReady:        onlyAllow,
	KeyReloading:    onlyAllow,
	KeyRestartReset: onlyAllow,
	KeyStatus:       {{Allow, []string{"max-bytes", "every", "prefix"}}},
	KeyStopping:     {{action: Allow}, {action: Rewrite}},
	KeyVarlinkError: onlyAllow,
	KeyWatchdog:     onlyAllow,
	KeyWatchdogUSec: {{action: Allow}, {Clamp, []string{"max"}}},
	KeyTrigger:      onlyAllow,
	KeyPrivate:      onlyAllow,
}

// argument is a limit of a rule as it is written.
type argument struct {
	name string
	want string // what a value looks like
	// set returns false if the value is wrong.
	set func(r *Rule, k Key, value string) bool
	// get returns "" for what is not set.
	get func(r *Rule) string
}

const wantDuration = "a duration such as 30s"

var arguments = []argument{
	{"max", wantDuration, func(r *Rule, _ Key, s string) bool { return setDuration(&r.Max, s) }, func(r *Rule) string { return formatDuration(r.Max) }},
	{"budget", wantDuration, func(r *Rule, _ Key, s string) bool { return setDuration(&r.Budget, s) }, func(r *Rule) string { return formatDuration(r.Budget) }},
	{"every", wantDuration, func(r *Rule, _ Key, s string) bool { return setDuration(&r.Every, s) }, func(r *Rule) string { return formatDuration(r.Every) }},
	{"max-bytes", "a number", func(r *Rule, _ Key, s string) bool { return setNumber(&r.MaxBytes, s) }, func(r *Rule) string { return formatNumber(r.MaxBytes) }},
	{"max-fds", "a number", func(r *Rule, _ Key, s string) bool { return setNumber(&r.MaxFDs, s) }, func(r *Rule) string { return formatNumber(r.MaxFDs) }},
	{"prefix", "at most 128 bytes of printable text, ASCII without ':' for FDNAME", setPrefix, formatPrefix},
}

func setDuration(d *time.Duration, s string) bool {
	var err error
	*d, err = time.ParseDuration(s)
	return err == nil && *d >= time.Microsecond && *d%time.Microsecond == 0
}

// formatDuration is what setDuration reads, "" for none.
func formatDuration(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return timespan.Format(d)
}

func setNumber(n *int, s string) bool {
	var err error
	*n, err = strconv.Atoi(s)
	return err == nil && *n > 0
}

func formatNumber(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

const maxPrefix = 128 // bytes

func setPrefix(r *Rule, k Key, s string) bool {
	r.Prefix = s
	if len(s) > maxPrefix || !isText([]byte(s)) || strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return false
	}
	return k != KeyFDName || isFDName([]byte(s))
}

func formatPrefix(r *Rule) string {
	if r.Prefix == "" {
		return ""
	}
	return strconv.Quote(r.Prefix)
}

// Set changes one rule: a key, an action, and arguments, separated by blanks,
// as in
//
//	EXTEND_TIMEOUT_USEC clamp max=30s budget=10m
//	STATUS allow max-bytes=512 every=100ms prefix="web: "
//	FDSTORE allow max-fds=8
//	X_* allow
//	WATCHDOG=trigger allow
//
// Every key can be denied. MAINPID, MAINPIDFD, MAINPIDFDID and MONOTONIC_USEC
// can be rewritten, STOPPING allowed or rewritten, EXTEND_TIMEOUT_USEC and
// WATCHDOG_USEC allowed or clamped, the others allowed; "unknown" can only be
// denied. Without MAINPID neither MAINPIDFD nor MAINPIDFDID is forwarded, and
// FDNAME and FDPOLL only with FDSTORE or FDSTOREREMOVE. An argument that is left
// out is no limit. A value with blanks is quoted as in Go. With an error, which
// is one line, the policy is as it was.
func (p *Policy) Set(rule string) error {
	name, rest := nextWord(rule)
	action, rest := nextWord(rest)
	if action == "" {
		return fmt.Errorf("rule %q: a key and an action are needed, such as \"READY allow\"", rule)
	}
	i := slices.Index(keyNames[:KeyNone], name)
	if i < 0 {
		return fmt.Errorf("unknown key %q: there are %s", name, strings.Join(keyNames[:KeyNone], ", "))
	}
	key := Key(i)
	o, err := findOption(key, action)
	if err != nil {
		return err
	}
	r := Rule{Action: o.action}
	if err := r.setArguments(key, o, rest); err != nil {
		return fmt.Errorf("%s %s: %w", name, action, err)
	}
	p.rules[key] = r
	return nil
}

func findOption(k Key, action string) (option, error) {
	allowed := []string{Deny.String()}
	if action == allowed[0] {
		return option{action: Deny}, nil
	}
	for _, o := range options[k] {
		if o.action.String() == action {
			return o, nil
		}
		allowed = append(allowed, o.action.String())
	}
	return option{}, fmt.Errorf("%s cannot have the action %q: only %s", k, action, strings.Join(allowed, " or "))
}

func (r *Rule) setArguments(k Key, o option, rest string) error {
	given := 0
	for rest = trimBlanks(rest); rest != ""; rest = trimBlanks(rest) {
		name, value, next, err := nextArgument(rest)
		if err != nil {
			return err
		}
		if !slices.Contains(o.arguments, name) {
			if len(o.arguments) == 0 {
				return fmt.Errorf("no argument expected, not %q", name)
			}
			return fmt.Errorf("no argument %q: there are %s", name, strings.Join(o.arguments, ", "))
		}
		i := slices.IndexFunc(arguments, func(a argument) bool { return a.name == name })
		if arguments[i].get(r) != "" {
			return fmt.Errorf("%s= is given twice", name)
		}
		if !arguments[i].set(r, k, value) {
			return fmt.Errorf("%s=%q is not %s", name, value, arguments[i].want)
		}
		rest = next
		given++
	}
	if o.action == Clamp && given == 0 {
		return fmt.Errorf("a limit is needed: %s", strings.Join(o.arguments, " or "))
	}
	return nil
}

const blanks = " \t"

func trimBlanks(s string) string { return strings.TrimLeft(s, blanks) }

func nextWord(s string) (word, rest string) {
	s = trimBlanks(s)
	end := strings.IndexAny(s, blanks)
	if end < 0 {
		end = len(s)
	}
	return s[:end], s[end:]
}

// nextArgument reads name=value or name="quoted value".
func nextArgument(s string) (name, value, rest string, err error) {
	name, after, found := strings.Cut(s, "=")
	if !found || strings.ContainsAny(name, blanks) {
		word, _ := nextWord(s)
		return "", "", "", fmt.Errorf("%q is not of the form name=value", word)
	}
	if !strings.HasPrefix(after, `"`) {
		value, rest = nextWord(after)
		return name, value, rest, nil
	}
	quoted, err := strconv.QuotedPrefix(after)
	if err == nil {
		value, err = strconv.Unquote(quoted)
	}
	rest = strings.TrimPrefix(after, quoted)
	if err != nil || (rest != "" && !strings.ContainsAny(rest[:1], blanks)) {
		return "", "", "", fmt.Errorf("%s=%s is not quoted as in Go", name, after)
	}
	return name, value, rest, nil
}

// Read changes the policy by the rules in r, one a line as in [Policy.Set].
// Blank lines and lines that begin with '#' are left out. An error says which
// line is wrong; the policy is then as it was.
func (p *Policy) Read(r io.Reader) error {
	changed := *p
	scanner := bufio.NewScanner(r)
	for n := 1; scanner.Scan(); n++ {
		line := strings.TrimSpace(scanner.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if err := changed.Set(line); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("reading a policy: %w", err)
	}
	*p = changed
	return nil
}

// String returns the whole policy, a line for each key, as [Policy.Read] reads it.
func (p Policy) String() string {
	var b strings.Builder
	for key := range KeyNone {
		r := &p.rules[key]
		fmt.Fprintf(&b, "%s %s", key, r.Action)
		for _, a := range arguments {
			if value := a.get(r); value != "" {
				fmt.Fprintf(&b, " %s=%s", a.name, value)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
