// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// describeMachine says where and with what was measured.
func describeMachine() string {
	var uname unix.Utsname
	_ = unix.Uname(&uname)
	var info unix.Sysinfo_t
	_ = unix.Sysinfo(&info)
	return fmt.Sprintf("%s. %s, %d processors, %.0f GiB; Linux %s; %s; strace %s; %s.\n",
		time.Now().Format(time.DateOnly), processor(), runtime.NumCPU(), float64(info.Totalram)*float64(info.Unit)/(1<<30),
		unix.ByteSliceToString(uname.Release[:]), runtime.Version(), lastWord("strace", "-V"), firstLine("bpftrace", "--version"))
}

func processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func firstLine(name string, args ...string) string {
	out, _ := exec.Command(name, args...).Output()
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

func lastWord(name string, args ...string) string {
	words := strings.Fields(firstLine(name, args...))
	if len(words) == 0 {
		return ""
	}
	return words[len(words)-1]
}
