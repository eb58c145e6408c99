// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime/debug"
	"strings"
)

// release is the version that is being worked on, or was released.
const release = "0.1.0"

// commit is what it was built of, set by the Makefile (-ldflags -X); "" is what go build knows.
var commit string

// version is the release and the commit.
func version() string {
	v, built := release, commit
	if info, ok := debug.ReadBuildInfo(); ok {
		// Of go install MODULE@VERSION.
		if tagged, ok := strings.CutPrefix(info.Main.Version, "v"); ok {
			v = tagged
		}
		if built == "" {
			built = vcsRevision(info)
		}
	}
	if built == "" {
		built = "unknown"
	}
	return fmt.Sprintf("%s (commit %s)", v, built)
}

// vcsRevision is the commit that go build found, "" when it did not look.
func vcsRevision(info *debug.BuildInfo) string {
	revision, modified := "", false
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			revision = setting.Value[:min(12, len(setting.Value))]
		case "vcs.modified":
			modified = setting.Value == "true"
		}
	}
	if revision != "" && modified {
		revision += "-dirty"
	}
	return revision
}
