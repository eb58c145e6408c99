// SPDX-License-Identifier: Apache-2.0

package field_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// guide is what the guide is written from.
type guide struct {
	systems []system
	stages  []*stage
	played  map[string]map[string][]line // by suite and scenario
}

// programs are the packages whose versions the guide tells.
var programs = []string{"systemd", "runc", "crun", "conmon", "podman", "docker.io", "containerd"}

// render writes the section of the guide that is about the scenarios.
func (g *guide) render(t *testing.T) string {
	var b strings.Builder
	b.WriteString("| | " + strings.Join(programs, " | ") + " |\n|---|" + strings.Repeat("---|", len(programs)) + "\n")
	for _, s := range g.stages {
		list, err := versions(s.m, programs...)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "| %s | %s |\n", release(s.suite), strings.Join(list, " | "))
	}
	b.WriteString("\n## All at a glance\n\n")
	b.WriteString("| what runs | the socket of the service | arrives at systemd | lost on the way |\n|---|---|---|---|\n")
	for _, system := range g.systems {
		for _, scenario := range system.scenarios {
			playings := g.playings(scenario)
			lines := playings[len(playings)-1].lines
			fmt.Fprintf(&b, "| [%s](#%s) | %s | %s | %s |\n", scenario.title, anchor(scenario.title), socketOf(lines), heard(lines), codes(lost(lines)))
		}
	}
	for _, system := range g.systems {
		b.WriteString("\n#" + strings.TrimSpace(system.about) + "\n")
		for i, scenario := range system.scenarios {
			g.renderScenario(&b, scenario, i == 0)
		}
	}
	return b.String()
}

func release(suite string) string {
	return map[string]string{"bookworm": "Debian 12", "trixie": "Debian 13"}[suite]
}

var notInAnchor = regexp.MustCompile(`[^a-z0-9 _-]`)

// anchor is what a heading is linked by on code hosts.
func anchor(title string) string {
	return strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(title), ""), " ", "-")
}

func (g *guide) renderScenario(b *strings.Builder, scenario *scenario, diagram bool) {
	fmt.Fprintf(b, "\n### %s\n\n", scenario.title)
	if scenario.prose != "" {
		b.WriteString(scenario.prose + "\n\n")
	}
	for _, f := range scenario.files {
		fmt.Fprintf(b, "    # %s\n", f.Name)
		for l := range strings.Lines(string(f.Data)) {
			b.WriteString(strings.TrimRight("    "+l, " \n") + "\n")
		}
		b.WriteString("\n")
	}
	playings := g.playings(scenario)
	for i, p := range playings {
		if i > 0 {
			b.WriteString("\n")
		}
		if len(playings) > 1 || p.suites < len(g.stages) {
			fmt.Fprintf(b, "%s:\n\n", release(p.suite))
		}
		for _, l := range p.lines {
			fmt.Fprintf(b, "    %7.3f  %s\n", l.at.Seconds(), l)
		}
		if text := fate(p.lines); text != "" {
			b.WriteString("\n" + text + "\n")
		}
	}
	if diagram {
		b.WriteString("\n" + mermaid(playings[len(playings)-1].lines))
	}
}

// playing is how a scenario plays in a suite, and in how many that come after it the same.
type playing struct {
	suite  string
	suites int
	lines  []line
}

// playings are the ways in which a scenario plays, those of the older suites first.
func (g *guide) playings(scenario *scenario) (list []playing) {
	for _, s := range g.stages {
		lines := g.played[s.suite][scenario.name]
		switch last := len(list) - 1; {
		case lines == nil:
		case last >= 0 && without(list[last].lines) == without(lines):
			list[last].suites++
		default:
			list = append(list, playing{s.suite, 1, lines})
		}
	}
	return list
}

// without are lines without their times.
func without(lines []line) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.String() + "\n")
	}
	return b.String()
}

// fate says what became of what web has said.
func fate(lines []line) string {
	said := slices.ContainsFunc(lines, func(l line) bool { return l.sent != nil && l.sent.from == "web" })
	arrived := slices.ContainsFunc(lines, func(l line) bool {
		return l.sent != nil && l.sent.from == "web" && l.sent.errno == ""
	})
	relayed := slices.ContainsFunc(lines, func(l line) bool {
		return l.sent != nil && l.sent.from == "web" && !manages(l.sent.to) && l.sent.errno == ""
	})
	switch list := lost(lines); {
	case len(list) > 0:
		return "Lost on the way: " + codes(list) + "."
	case !said && slices.ContainsFunc(lines, func(l line) bool { return l.sent != nil }):
		return "" // the others have
	case !said:
		return "Nobody says anything."
	case !arrived:
		return "Nothing that the service says arrives."
	case relayed:
		return "Nothing is lost on the way."
	case slices.ContainsFunc(lines, func(l line) bool { return l.sent != nil && l.sent.to == innerPID1 }):
		return "What `web` says goes to the systemd inside alone."
	}
	return "Nobody stands in between."
}

func codes(list []string) string {
	var quoted []string
	for _, a := range list {
		if code := "`" + strings.ReplaceAll(a, "|", `\|`) + "`"; !slices.Contains(quoted, code) {
			quoted = append(quoted, code)
		}
	}
	return strings.Join(quoted, ", ")
}

// socketOf is the socket that web was given.
func socketOf(lines []line) string {
	for _, l := range lines {
		if address, ok := strings.CutPrefix(l.text, "web: starts with NOTIFY_SOCKET="); ok {
			return "`" + address + "`"
		}
		if l.text == "web: starts without NOTIFY_SOCKET" {
			return "no"
		}
	}
	return ""
}

// heard are the assignments that arrive at systemd.
func heard(lines []line) string {
	var all []string
	for _, l := range lines {
		if l.sent != nil && (l.sent.to == "systemd" || l.sent.to == userManager) && l.sent.errno == "" {
			all = append(all, split(l.sent.say)...)
		}
	}
	return codes(all)
}

// mermaid draws who says what to whom.
func mermaid(lines []line) string {
	var b strings.Builder
	b.WriteString("```mermaid\nsequenceDiagram\n")
	name := func(s string) string { return strings.NewReplacer(" ", "_", "--", "", "/", "_", ":", "_").Replace(s) }
	for _, l := range lines {
		if l.sent == nil {
			continue
		}
		to := l.sent.to
		if to == "" {
			to = l.sent.address
		}
		arrow := "->>"
		if l.sent.errno != "" {
			arrow = "-x"
		}
		fmt.Fprintf(&b, "    %s%s%s: %s\n", name(l.sent.from), arrow, name(to), inDiagram(l.sent.say))
	}
	b.WriteString("```\n")
	return b.String()
}

// inDiagram is a datagram as Mermaid can have it.
func inDiagram(say string) string {
	return strings.NewReplacer(";", "#59;", "<", "#lt;", ">", "#gt;", `\n`, "<br/>").Replace(strings.TrimSuffix(say, `\n`))
}
