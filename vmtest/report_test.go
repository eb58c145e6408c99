// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReportTellsHowTheMachineFared(t *testing.T) {
	const pkg = "example.org/a"
	for _, tt := range []struct {
		name    string
		console []string
		want    Report
	}{
		{
			name: "all well, between firmware and power-off",
			console: []string{
				"\x1b[2JSeaBIOS (version 1)\r", "\x1bc\x1b[?7l@@vmtest kernel 6.1.0-56-amd64\r",
				"@@vmtest start " + pkg, "=== RUN   TestA", "--- PASS: TestA (0.00s)", "PASS",
				"@@vmtest exit " + pkg + " 0 1.5", "@@vmtest kmsg 4 tsc: slow", "@@vmtest end", "[    6.1] reboot: Power down",
			},
			want: Report{
				Release: "6.1.0-56-amd64",
				Runs:    []Run{{Package: pkg, Output: "=== RUN   TestA\n--- PASS: TestA (0.00s)\nPASS\n", Took: 1500 * time.Millisecond}},
			},
		},
		{
			name:    "exit status",
			console: []string{"@@vmtest start " + pkg, "FAIL", "@@vmtest exit " + pkg + " 137 1.5", "@@vmtest end"},
			want:    Report{Runs: []Run{{Package: pkg, Output: "FAIL\n", Exit: 137, Took: 1500 * time.Millisecond}}},
		},
		{
			name: "kernel complains on x86",
			console: []string{
				"@@vmtest start " + pkg, "@@vmtest kmsg 4 WARNING: CPU: 1 PID: 7 at kernel/bpf/core.c:1",
				"@@vmtest kmsg 4 Call Trace:", "@@vmtest exit " + pkg + " 0 0.0", "@@vmtest end",
			},
			want: Report{
				Runs:     []Run{{Package: pkg}},
				Problems: []string{"kernel: WARNING: CPU: 1 PID: 7 at kernel/bpf/core.c:1", "kernel: Call Trace:"},
			},
		},
		{
			name: "kernel complains on arm64",
			console: []string{
				"@@vmtest start " + pkg, "@@vmtest exit " + pkg + " 0 0.0",
				"@@vmtest kmsg 0 Internal error: Oops: 96000004 [#1] SMP", "@@vmtest kmsg 4 Call trace:", "@@vmtest end",
			},
			want: Report{
				Runs:     []Run{{Package: pkg}},
				Problems: []string{"kernel: Internal error: Oops: 96000004 [#1] SMP", "kernel: Call trace:"},
			},
		},
		{
			name:    "panic in a test",
			console: []string{"@@vmtest start " + pkg, "[    6.8] Kernel panic - not syncing: sysrq triggered crash"},
			want: Report{
				Runs: []Run{{Package: pkg, Output: "[    6.8] Kernel panic - not syncing: sysrq triggered crash\n", Exit: -1}},
				Problems: []string{
					"kernel: [    6.8] Kernel panic - not syncing: sysrq triggered crash",
					pkg + " did not end", "the machine stopped before the end of the tests",
				},
			},
		},
		{
			name:    "never booted",
			console: nil,
			want:    Report{Problems: []string{pkg + " was not started", "the machine stopped before the end of the tests"}},
		},
		{
			name:    "cut off after the last test",
			console: []string{"@@vmtest start " + pkg, "PASS", "@@vmtest exit " + pkg + " 0 0.0"},
			want: Report{
				Runs:     []Run{{Package: pkg, Output: "PASS\n"}},
				Problems: []string{"the machine stopped before the end of the tests"},
			},
		},
		{
			name:    "damaged line",
			console: []string{"@@vmtest start " + pkg, "@@vmtest exit " + pkg, "@@vmtest end"},
			want: Report{
				Runs:     []Run{{Package: pkg, Exit: -1}},
				Problems: []string{`unreadable line "@@vmtest exit example.org/a"`, pkg + " did not end"},
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ParseReport(strings.Join(tt.console, "\n"), []string{pkg})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
		})
	}
}

func TestKernelTableIsWellFormed(t *testing.T) {
	for _, k := range Kernels() {
		if !strings.HasSuffix(k.Name, "-"+k.Arch) || k.Package != "linux-image-"+k.Arch {
			t.Errorf("%+v: name and package do not fit the architecture", k)
		}
		for _, backend := range k.Backends {
			if backend != "fentry" && backend != "tracepoint" {
				t.Errorf("%s: unknown backend %q", k.Name, backend)
			}
		}
	}
}

func TestMalformedKernelTableIsRefused(t *testing.T) {
	const good = "6.1-amd64 amd64 bookworm linux-image-amd64 fentry,tracepoint\n"
	for _, tt := range []struct{ name, table, want string }{
		{"missing column", "6.1-amd64 amd64 bookworm linux-image-amd64", "line 1: 4 columns, not 5"},
		{"twice", "# comment\n" + good + good, "line 3: 6.1-amd64 stands there twice"},
		{"architecture", "6.1-mips mips bookworm linux-image-mips tracepoint", `line 1: unknown architecture "mips"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseKernels(tt.table)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}
