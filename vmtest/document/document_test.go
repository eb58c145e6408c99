// SPDX-License-Identifier: Apache-2.0

//go:build linux

package document

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAnotherRunIsTheSame(t *testing.T) {
	for name, runs := range map[string][2]string{
		"seconds":          {" 9.345 dockerd[9]  ready", "112.345678 dockerd[1234] ready"},
		"clock":            {"20:51:42.952643 nginx[812]      nginx.service -> x", "01:00:00.000000 nginx[99]       nginx.service -> x"},
		"duration":         {"<- a[2] read after 2.1ms, sender gone for 1.8µs READY=1", "<- a[3] read after 410ns, sender gone for 2s READY=1"},
		"sender gone":      {"<- a[2] read after 2.1ms, sender gone for 1.8µs READY=1", "<- a[3] read after 410ns READY=1"},
		"duration at end":  {"barrier passed after 17µs", "barrier passed after 1.5s"},
		"main process":     {"MAINPID=77\nMainPID=78", "MAINPID=4711\nMainPID=9"},
		"systemd's own":    {"SYSTEMD_EXEC_PID=2345 WATCHDOG_PID=2", "SYSTEMD_EXEC_PID=99 WATCHDOG_PID=10"},
		"proc":             {"# tr '\\0' '\\n' </proc/812/environ", "# tr '\\0' '\\n' </proc/99/environ"},
		"monotonic":        {"RELOADING=1 MONOTONIC_USEC=123456", "RELOADING=1 MONOTONIC_USEC=9"},
		"relay's log":      {"00:41:43.349079 [26785] MAINPID rewritten: pid namespace \"26785\"", "00:41:44.349079 [3] MAINPID rewritten: pid namespace \"3\""},
		"relay's log, id":  {"MAINPIDFDID added \"610615\"", "MAINPIDFDID added \"7\""},
		"socket":           {"socket 21044 of systemd[1] init.scope", "socket 7 of systemd[1] init.scope"},
		"list of sockets":  {"/run/systemd/notify  21044  host   0777  0:0   -", "/run/systemd/notify  9  host   0777  0:0   -"},
		"namespace":        {"job[1744]   docker:web  4026532318  /run/x", "job[2]   docker:web  4026531840  /run/x"},
		"width of a table": {"PROCESS        UNIT\na[12345678]    b", "PROCESS    UNIT\na[2]       b"},
	} {
		t.Run(name, func(t *testing.T) {
			if a, b := Normalize(runs[0]), Normalize(runs[1]); a != b {
				t.Errorf("two runs differ:\n%s\n%s", a, b)
			}
			if Normalize(runs[0]) == runs[0] {
				t.Errorf("nothing of %q is different in another run", runs[0])
			}
		})
	}
}

// section is as a test writes it, with all that is different in another run.
const section = `Some words.

` + "```console" + `
# sdtrace --unit docker
20:51:42.952643 dockerd[812]  docker.service -> /run/systemd/notify systemd[1] ok READY=1
20:51:43.100220 systemd[1]    init.scope     <- dockerd[812] read after 2.1ms READY=1
20:51:44.000000 dockerd[812]  docker.service -> /run/systemd/notify   FAILED ENOENT STOPPING=1
# systemctl show -p MainPID -p NRestarts docker
MainPID=812
NRestarts=3
` + "```" + `
`

func TestEveryOtherDifferenceCounts(t *testing.T) {
	file := writeDocument(t, section)
	if diff, err := compare(file, "boot", strings.ReplaceAll(section, "812", "99")); err != nil || diff != "" {
		t.Fatalf("another pid: %v\n%s", err, diff)
	}
	for name, change := range map[string][2]string{
		"word":            {"Some words", "Other words"},
		"missing line":    {"20:51:44.000000 dockerd[812]  docker.service -> /run/systemd/notify   FAILED ENOENT STOPPING=1\n", ""},
		"added line":      {"NRestarts=3\n", "NRestarts=3\nNRestarts=3\n"},
		"blank line":      {"Some words.\n\n", "Some words.\n"},
		"indentation":     {"NRestarts=3\n", "  NRestarts=3\n"},
		"unit":            {"docker.service -> /run/systemd/notify systemd", "dock.service -> /run/systemd/notify systemd"},
		"sender's name":   {"dockerd[812]  docker.service ->", "docker[812]  docker.service ->"},
		"who reads":       {"<- dockerd[812]", "<- docker[812]"},
		"reader is not 1": {"systemd[1]    init", "systemd[2]    init"},
		"no main process": {"MainPID=812", "MainPID=0"},
		"number":          {"NRestarts=3", "NRestarts=4"},
		"what was said":   {"2.1ms READY=1", "2.1ms READY=0"},
		"error":           {"ENOENT", "ECONNREFUSED"},
		"no duration":     {"read after 2.1ms READY", "read READY"},
	} {
		t.Run(name, func(t *testing.T) {
			fresh := strings.Replace(section, change[0], change[1], 1)
			if fresh == section {
				t.Fatalf("%q does not stand there", change[0])
			}
			diff, err := compare(file, "boot", fresh)
			if err != nil {
				t.Fatal(err)
			}
			if diff == "" {
				t.Error("the difference is not seen")
			}
		})
	}
	t.Run("order", func(t *testing.T) {
		lines := strings.Split(section, "\n")
		lines[4], lines[5] = lines[5], lines[4]
		if diff, err := compare(file, "boot", strings.Join(lines, "\n")); err != nil || diff == "" {
			t.Errorf("two lines in another order are not seen (%v)", err)
		}
	})
}

// writeDocument makes a file in which text is the section "boot".
func writeDocument(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "guide.md")
	err := os.WriteFile(file, []byte("# Guide\n\n<!-- boot: generated -->\n"+text+"<!-- boot: end -->\n\nThe end.\n"), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestUpdateWritesOnlyTheSection(t *testing.T) {
	for name, fresh := range map[string]string{"longer": section + "More.\n", "shorter": "Less.\n", "without a line end": "Less."} {
		t.Run(name, func(t *testing.T) {
			file := writeDocument(t, section)
			if err := Write(file, "boot", fresh); err != nil {
				t.Fatal(err)
			}
			if diff, err := compare(file, "boot", fresh); err != nil || diff != "" {
				t.Errorf("what was written is not there: %v\n%s", err, diff)
			}
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := "# Guide\n\n<!-- boot: generated -->\n" + strings.TrimSuffix(fresh, "\n") + "\n<!-- boot: end -->\n\nThe end.\n"
			if string(got) != want {
				t.Errorf("the file is\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestWholeFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tutorial.md")
	if _, err := compare(file, "", "Words.\n"); err == nil {
		t.Error("a file that is not there is no error")
	}
	if err := Write(file, "", section); err != nil {
		t.Fatal(err)
	}
	if err := Write(file, "", "Words.\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "Words.\n" {
		t.Errorf("the file is %q (%v)", got, err)
	}
	if diff, err := compare(file, "", "Words.\n"); err != nil || diff != "" {
		t.Errorf("what was written is not there: %v\n%s", err, diff)
	}
	if diff, err := compare(file, "", "Words!\n"); err != nil || diff == "" {
		t.Errorf("a difference is not seen (%v)", err)
	}
}

func TestMarksStandThereOnce(t *testing.T) {
	begin, end := "<!-- boot: generated -->\n", "<!-- boot: end -->\n"
	for name, text := range map[string]string{
		"none": "words\n", "no end": begin, "no beginning": end, "twice": begin + end + begin + end, "another": "<!-- field: generated -->\n<!-- field: end -->\n",
		"in another order": end + begin,
	} {
		if _, _, _, err := cutSection(text, "boot"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestTheCommandThatUpdates(t *testing.T) {
	const want = "CGO_ENABLED=0 go test ./vmtest/document -count=1 -run '^TestA$/^b$' -update"
	if got := updating("TestA/b"); got != want {
		t.Errorf("it is %q, want %q", got, want)
	}
}
