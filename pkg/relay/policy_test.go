// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSetReadsARule(t *testing.T) {
	for _, tc := range []struct {
		rule string
		key  Key
		want Rule
	}{
		{"READY allow", KeyReady, Rule{Action: Allow}},
		{"\t READY \t deny ", KeyReady, Rule{}},
		{"STOPPING rewrite", KeyStopping, Rule{Action: Rewrite}},
		{"X_* allow", KeyPrivate, Rule{Action: Allow}},
		{"WATCHDOG=trigger allow", KeyTrigger, Rule{Action: Allow}},
		{"unknown deny", KeyUnknown, Rule{}},
		{"EXTEND_TIMEOUT_USEC clamp max=30s budget=10m", KeyExtendTimeout, Rule{Action: Clamp, Max: 30 * time.Second, Budget: 10 * time.Minute}},
		{"EXTEND_TIMEOUT_USEC clamp budget=1h30m", KeyExtendTimeout, Rule{Action: Clamp, Budget: 90 * time.Minute}},
		{"WATCHDOG_USEC clamp max=500ms", KeyWatchdogUSec, Rule{Action: Clamp, Max: 500 * time.Millisecond}},
		{`STATUS allow max-bytes=512 prefix="web: "`, KeyStatus, Rule{Action: Allow, MaxBytes: 512, Prefix: "web: "}},
		{"STATUS allow every=100ms", KeyStatus, Rule{Action: Allow, Every: 100 * time.Millisecond}},
		{`STATUS allow prefix="a \"b\" \\ = ü"`, KeyStatus, Rule{Action: Allow, Prefix: `a "b" \ = ü`}},
		{"STATUS allow prefix=web-=", KeyStatus, Rule{Action: Allow, Prefix: "web-="}},
		{"FDSTORE allow max-fds=8", KeyFDStore, Rule{Action: Allow, MaxFDs: 8}},
		{"FDNAME allow prefix=web-", KeyFDName, Rule{Action: Allow, Prefix: "web-"}},
	} {
		p := DefaultPolicy()
		if err := p.Set(tc.rule); err != nil {
			t.Errorf("%s: %v", tc.rule, err)
		} else if diff := cmp.Diff(tc.want, p.Rule(tc.key)); diff != "" {
			t.Errorf("%s: - want, + got\n%s", tc.rule, diff)
		}
	}
}

func TestSetSaysInOneLineWhatIsWrong(t *testing.T) {
	long := strings.Repeat("x", maxPrefix+1)
	for _, tc := range []struct{ rule, want string }{
		{"", `rule "": a key and an action are needed, such as "READY allow"`},
		{"READY", `rule "READY": a key and an action are needed, such as "READY allow"`},
		{"FOO allow", `unknown key "FOO": there are BARRIER, BUSERROR,`},
		{"ready allow", `unknown key "ready"`},
		{"datagram deny", `unknown key "datagram"`},
		{"READY Allow", `READY cannot have the action "Allow": only deny or allow`},
		{"READY clamp", `READY cannot have the action "clamp": only deny or allow`},
		{"MAINPID allow", `MAINPID cannot have the action "allow": only deny or rewrite`},
		{"unknown allow", `unknown cannot have the action "allow": only deny`},
		{"READY allow max=3s", `READY allow: no argument expected, not "max"`},
		{"STATUS deny max-bytes=3", `STATUS deny: no argument expected, not "max-bytes"`},
		{"EXTEND_TIMEOUT_USEC allow max=3s", `EXTEND_TIMEOUT_USEC allow: no argument expected, not "max"`},
		{"STATUS allow max=3s", `STATUS allow: no argument "max": there are max-bytes, every, prefix`},
		{"STATUS allow max-bytes", `STATUS allow: "max-bytes" is not of the form name=value`},
		{"STATUS allow now max-bytes=3", `STATUS allow: "now" is not of the form name=value`},
		{"STATUS allow max-bytes=3 max-bytes=4", "STATUS allow: max-bytes= is given twice"},
		{"STATUS allow max-bytes=0", `STATUS allow: max-bytes="0" is not a number`},
		{"STATUS allow max-bytes=-1", `STATUS allow: max-bytes="-1" is not a number`},
		{"STATUS allow max-bytes=", `STATUS allow: max-bytes="" is not a number`},
		{`STATUS allow prefix="web`, `STATUS allow: prefix="web is not quoted as in Go`},
		{`STATUS allow prefix="a"b`, `STATUS allow: prefix="a"b is not quoted as in Go`},
		{`STATUS allow prefix="a\nb"`, `STATUS allow: prefix="a\nb" is not at most 128 bytes of printable text`},
		{`STATUS allow prefix="\xff"`, `STATUS allow: prefix="\xff" is not at most 128 bytes of printable text`},
		{"STATUS allow prefix=" + long, "is not at most 128 bytes of printable text"},
		{"FDNAME allow prefix=web:", `FDNAME allow: prefix="web:" is not at most 128 bytes of printable text, ASCII without ':' for FDNAME`},
		{"FDNAME allow prefix=ü", `FDNAME allow: prefix="ü" is not at most`},
		{"FDSTORE allow max-fds=many", `FDSTORE allow: max-fds="many" is not a number`},
		{"EXTEND_TIMEOUT_USEC clamp", "EXTEND_TIMEOUT_USEC clamp: a limit is needed: max or budget"},
		{"WATCHDOG_USEC clamp", "WATCHDOG_USEC clamp: a limit is needed: max"},
		{"EXTEND_TIMEOUT_USEC clamp max=30", `EXTEND_TIMEOUT_USEC clamp: max="30" is not a duration such as 30s`},
		{"EXTEND_TIMEOUT_USEC clamp max=0s", `max="0s" is not a duration such as 30s`},
		{"EXTEND_TIMEOUT_USEC clamp max=-5s", `max="-5s" is not a duration such as 30s`},
		{"EXTEND_TIMEOUT_USEC clamp max=5ns", `max="5ns" is not a duration such as 30s`},
	} {
		p := DefaultPolicy()
		err := p.Set(tc.rule)
		switch {
		case err == nil:
			t.Errorf("%q is taken", tc.rule)
		case !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n"):
			t.Errorf("%q: %v, want %s", tc.rule, err, tc.want)
		case p != DefaultPolicy():
			t.Errorf("%q is refused and changes the policy", tc.rule)
		}
	}
}

func TestEveryKeyTakesItsActionsOnly(t *testing.T) {
	for name, actions := range map[string]string{
		"BARRIER": "deny allow", "BUSERROR": "deny allow", "ERRNO": "deny allow", "EXIT_STATUS": "deny allow",
		"EXTEND_TIMEOUT_USEC": "deny allow clamp", "FDNAME": "deny allow", "FDPOLL": "deny allow", "FDSTORE": "deny allow",
		"FDSTOREREMOVE": "deny allow", "MAINPID": "deny rewrite", "MAINPIDFD": "deny rewrite", "MAINPIDFDID": "deny rewrite",
		"MONOTONIC_USEC": "deny rewrite", "NOTIFYACCESS": "deny allow", "READY": "deny allow", "RELOADING": "deny allow",
		"RESTART_RESET": "deny allow", "STATUS": "deny allow", "STOPPING": "deny allow rewrite", "VARLINKERROR": "deny allow",
		"WATCHDOG": "deny allow", "WATCHDOG_USEC": "deny allow clamp", "WATCHDOG=trigger": "deny allow", "X_*": "deny allow",
		"unknown": "deny", "datagram": "",
	} {
		var taken []string
		for _, action := range actionNames {
			rule := name + " " + action
			if action == "clamp" {
				rule += " max=1s"
			}
			var p Policy
			if p.Set(rule) == nil {
				taken = append(taken, action)
			}
		}
		if got := strings.Join(taken, " "); got != actions {
			t.Errorf("%s: %s, want %s", name, got, actions)
		}
	}
}

const defaultText = `BARRIER allow
BUSERROR allow
ERRNO allow
EXIT_STATUS allow
EXTEND_TIMEOUT_USEC clamp max=2m budget=10m
FDNAME allow
FDPOLL allow
FDSTORE deny
FDSTOREREMOVE deny
MAINPID rewrite
MAINPIDFD rewrite
MAINPIDFDID rewrite
MONOTONIC_USEC rewrite
NOTIFYACCESS deny
READY allow
RELOADING allow
RESTART_RESET deny
STATUS allow
STOPPING rewrite
VARLINKERROR allow
WATCHDOG allow
WATCHDOG_USEC deny
WATCHDOG=trigger deny
X_* deny
unknown deny
`

func TestTheDefaultPolicy(t *testing.T) {
	if diff := cmp.Diff(defaultText, DefaultPolicy().String()); diff != "" {
		t.Errorf("- want, + got\n%s", diff)
	}
}

func TestTheZeroPolicyDeniesEverything(t *testing.T) {
	for _, line := range strings.Split(strings.TrimSpace(Policy{}.String()), "\n") {
		if !strings.HasSuffix(line, " deny") {
			t.Error(line)
		}
	}
}

func TestAPolicyReadsWhatItPrints(t *testing.T) {
	everything := mustPolicy(t, Policy{}, `
# comments, blank lines and the line ends of other systems do not matter
STATUS allow max-bytes=512 prefix="web \\ \"ü\": "

  EXTEND_TIMEOUT_USEC clamp max=1h budget=36h15m10s
WATCHDOG_USEC clamp max=1500ms
FDNAME allow prefix="a b"
FDSTORE allow max-fds=253`+"\r\n#\r\nX_* allow\r\n")
	for _, p := range []Policy{{}, DefaultPolicy(), everything} {
		again := DefaultPolicy()
		if err := again.Read(strings.NewReader(p.String())); err != nil {
			t.Errorf("%v in\n%s", err, p)
		} else if again != p {
			t.Errorf("read again: - first, + again\n%s", cmp.Diff(p.String(), again.String()))
		}
	}
}

func mustPolicy(t testing.TB, p Policy, rules string) Policy {
	t.Helper()
	if err := p.Read(strings.NewReader(rules)); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestReadSaysWhichLineIsWrongAndChangesNothing(t *testing.T) {
	p := DefaultPolicy()
	err := p.Read(strings.NewReader("# header\n\nREADY deny\nREADY alow\n"))
	if err == nil || err.Error() != `line 4: READY cannot have the action "alow": only deny or allow` {
		t.Errorf("%v", err)
	}
	broken := errors.New("broken disk")
	if err := p.Read(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if p != DefaultPolicy() {
		t.Errorf("changed to\n%s", p)
	}
}
