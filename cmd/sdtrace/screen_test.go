// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/vmtest"
)

var update = flag.Bool("update", false, "write the golden file of the screen, for a person to read")

// scene is a capture of 23 units below one systemd, 529 seconds long.
const scene = "testdata/scene.jsonl.zst"

// terminal is a real one, by tmux(1), in which a shell command runs.
type terminal struct {
	t           *testing.T
	dir, socket string
}

// openTerminal opens a terminal of so many columns. The shell command finds sdtrace in $PATH.
func openTerminal(t *testing.T, columns int, command string) *terminal {
	t.Helper()
	vmtest.Natively(t, "what is written to a terminal")
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Fatal("tmux is not installed: make test installs it")
	}
	dir := t.TempDir()
	if err := os.Symlink(testBinary(t), filepath.Join(dir, "sdtrace")); err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, dir: dir, socket: filepath.Join(dir, "tmux")}
	configuration := filepath.Join(dir, "tmux.conf")
	if err := os.WriteFile(configuration, []byte("set -g history-limit 100000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	term.tmux("-f", configuration, "new-session", "-d", "-x", fmt.Sprint(columns), "-y", "50", command+"; read wait") // with all its lines
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", term.socket, "kill-server").Run() })
	return term
}

// testBinary is this test's own, which is sdtrace under that name (testscript.Main).
func testBinary(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}

func (term *terminal) tmux(args ...string) string {
	term.t.Helper()
	cmd := exec.Command("tmux", append([]string{"-S", term.socket}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+term.dir+":"+os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC", "NO_COLOR=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		term.t.Fatalf("tmux %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// resize makes the terminal another width, and waits until it is.
func (term *terminal) resize(columns int) {
	term.t.Helper()
	term.tmux("resize-window", "-x", fmt.Sprint(columns))
	tty, err := os.OpenFile(strings.TrimSpace(term.tmux("display-message", "-p", "#{pane_tty}")), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		term.t.Fatal(err)
	}
	defer tty.Close()
	await.Until(term.t, fmt.Sprintf("the terminal has %d columns", columns), func() bool {
		size, err := unix.IoctlGetWinsize(int(tty.Fd()), unix.TIOCGWINSZ)
		return err == nil && int(size.Col) == columns
	})
}

// shown is all that was written so far, each line as the terminal shows it.
func (term *terminal) shown() []string {
	lines := strings.Split(term.tmux("capture-pane", "-p", "-S", "-"), "\n")
	for len(lines) > 0 && strings.TrimSpace(lines[len(lines)-1]) == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// await waits until a line holds a text.
func (term *terminal) await(text string) []string {
	term.t.Helper()
	var lines []string
	defer func() {
		if term.t.Failed() {
			term.t.Logf("the terminal shows at its end:\n%s", strings.Join(lines[max(0, len(lines)-10):], "\n"))
		}
	}()
	await.Until(term.t, fmt.Sprintf("the terminal shows %q", text), func() bool {
		lines = term.shown()
		return strings.Contains(strings.Join(lines, "\n"), text)
	})
	return lines
}

// showScene is the scene's screen.
func showScene(t *testing.T, columns int, flags string) []string {
	t.Helper()
	file, err := filepath.Abs(scene)
	if err != nil {
		t.Fatal(err)
	}
	return openTerminal(t, columns, "sdtrace "+flags+" -r "+file).await("sdtrace: 3840 events, 0 lost")
}

func TestTheSceneFitsATerminal(t *testing.T) {
	for _, columns := range []int{80, 100, 200} {
		t.Run(fmt.Sprint(columns), func(t *testing.T) {
			lines := showScene(t, columns, "")
			if len(lines) > 300 {
				t.Errorf("%d lines", len(lines))
			}
			screen := strings.Join(lines, "\n")
			for _, fact := range []string{
				"READY=true", "FAILED ENOENT READY=1", "-> /run/nowhere/notify", "× WATCHDOG=1", "FAILED ENOTCONN",
				"RELOADING=1", "STOPPING=1", "from 5 processes",
			} {
				if !strings.Contains(screen, fact) {
					t.Errorf("%q is not shown", fact)
				}
			}
			// No line was wrapped by the terminal: each begins with a time, an indent, or the header.
			for _, line := range lines[:len(lines)-1] {
				if line != "" && !strings.HasPrefix(line, "09:") && !strings.HasPrefix(line, "    ") && !strings.HasPrefix(line, "---") &&
					!strings.HasPrefix(line, "sdtrace: ") {
					t.Errorf("wrapped: %q", line)
				}
			}
		})
	}
}

// A person has read the golden file.
func TestTheScreenOfTheSceneIsAsItWasRead(t *testing.T) {
	const golden = "testdata/scene-100.txt"
	lines := showScene(t, 100, "")
	narrow, end := 0, len(lines)
	for i, line := range lines {
		if ansi.StringWidthWc(line) <= 100 {
			narrow++
		}
		if strings.HasPrefix(line, "sdtrace: ") {
			end = i + 1
		}
	}
	if narrow*10 < len(lines)*9 {
		t.Errorf("of %d lines %d fit in 100 columns", len(lines), narrow)
	}
	screen := strings.Join(lines[:end], "\n") + "\n"
	if *update {
		if err := os.WriteFile(golden, []byte(screen), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), screen); diff != "" {
		t.Errorf("(-want +shown; go test ./cmd/sdtrace -run TheScreen -update writes the file):\n%s", diff)
	}
}

func TestPingsAreShownWhenTheyAreAskedFor(t *testing.T) {
	if lines := showScene(t, 200, "--pings"); len(lines) < 3840 {
		t.Errorf("%d lines", len(lines))
	}
	lines := openTerminal(t, 200, "sdtrace --unit search-indexer --key WATCHDOG -r "+filepath.Join(mustGetwd(t), scene)).await("sdtrace: ")
	if strings.Contains(strings.Join(lines, "\n"), "×") {
		t.Errorf("counted although asked for by --key:\n%s", strings.Join(lines, "\n"))
	}
}

func TestAPipeGetsWholeLines(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-r", scene}, &stdout, &stderr); status != 0 {
		t.Fatalf("status %d: %s", status, &stderr)
	}
	if n := bytes.Count(stdout.Bytes(), []byte("\n")); n != 3840 {
		t.Errorf("%d lines", n)
	}
	if bytes.ContainsRune(stdout.Bytes(), '…') {
		t.Error("something was cut")
	}
}

func TestLinesFollowTheTerminalsWidth(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "capture")
	if out, err := exec.Command("mkfifo", fifo).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	term := openTerminal(t, 150, "sdtrace -r "+fifo)
	capture, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer capture.Close()
	tell := func(text string) {
		const event = `{"type":"send","seq":1,"time":"2026-11-28T09:50:04.332573929Z","backend":"tracepoint",` +
			`"sender":{"pid":7,"tid":7,"ppid":1,"ns_pid":7,"comm":"web","uid":0,"gid":0,"cgroup":"/system.slice/web.service","unit":"web.service"},` +
			`"socket":{"address":"/run/systemd/notify","type":"dgram"},"result":{"errno":""},"payload":%q}` + "\n"
		if _, err := fmt.Fprintf(capture, event, "STATUS="+text+" "+strings.Repeat("x", 200)); err != nil {
			t.Fatal(err)
		}
	}
	for _, columns := range []int{150, 70, 120} {
		term.resize(columns)
		text := fmt.Sprintf("in %d columns", columns)
		tell(text)
		for _, line := range term.await(text) {
			if strings.Contains(line, text) && ansi.StringWidthWc(line) != columns {
				t.Errorf("%d columns in a terminal of %d: %s", ansi.StringWidthWc(line), columns, line)
			}
		}
	}
}

func mustGetwd(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
