// SPDX-License-Identifier: Apache-2.0

package field_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/tools/txtar"
)

// system is a directory of testdata: a chapter of the guide.
type system struct {
	about     string // Markdown, beginning with the heading
	scenarios []*scenario
}

// scenario is a file of testdata, a txtar archive. See testdata/README.md.
type scenario struct {
	name  string // of the file, with its directory's
	title string
	prose string
	// files are written into the root of systemd before it begins: units by their
	// names, others by their paths.
	files []txtar.File
	// before and after are scripts that are not part of the story.
	before, after string
	// timelines are the lines that have to come, in this order; lost is what a relay
	// keeps to itself. By suite; "" is for those that are not mentioned.
	timelines, lost map[string][]string
}

// emulated are the scenarios for an emulated machine: one or two for each way in which a
// notification is passed on. All of them would take an hour.
var emulated = regexp.MustCompile(`^(1-systemd/01|2-nspawn/01|3-runc/(01|07|12)|4-crun/01|5-podman/0[13])-`)

func (s *scenario) inVM() bool { return emulated.MatchString(s.name) }

// timeline is what has to come in a suite, if the scenario is for it.
func (s *scenario) timeline(suite string) (want []string, lost []string, ok bool) {
	want, ok = s.timelines[suite]
	if !ok {
		want, ok = s.timelines[""]
	}
	lost, found := s.lost[suite]
	if !found {
		lost = s.lost[""]
	}
	return want, lost, ok
}

// isTheSame reports whether it is to come to the same in all suites.
func (s *scenario) isTheSame() bool {
	want, lost, _ := s.timeline(suites[0])
	for _, suite := range suites {
		otherWant, otherLost, ok := s.timeline(suite)
		if !ok || !slices.Equal(want, otherWant) || !slices.Equal(lost, otherLost) {
			return false
		}
	}
	return true
}

// readSystems reads all of testdata.
func readSystems() ([]system, error) {
	abouts, err := filepath.Glob("testdata/*/about.md")
	if err != nil {
		return nil, err
	}
	slices.Sort(abouts)
	var all []system
	for _, file := range abouts {
		about, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		s := system{about: string(about)}
		setup, err := os.ReadFile(filepath.Join(filepath.Dir(file), "setup.sh"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		files, err := filepath.Glob(filepath.Join(filepath.Dir(file), "*.txtar"))
		if err != nil {
			return nil, err
		}
		slices.Sort(files)
		for _, file := range files {
			scenario, err := readScenario(file)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			scenario.before = string(setup) + scenario.before
			s.scenarios = append(s.scenarios, scenario)
		}
		all = append(all, s)
	}
	return all, nil
}

func readScenario(file string) (*scenario, error) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		return nil, err
	}
	s := &scenario{
		name:      strings.TrimSuffix(strings.TrimPrefix(file, "testdata/"), ".txtar"),
		timelines: map[string][]string{}, lost: map[string][]string{},
	}
	title, prose, _ := strings.Cut(string(archive.Comment), "\n")
	s.title, s.prose = strings.TrimPrefix(title, "# "), strings.TrimSpace(prose)
	for _, f := range archive.Files {
		kind, suite, _ := strings.Cut(f.Name, " ")
		if suite != "" && release(suite) == "" {
			return nil, fmt.Errorf("no suite %q", suite)
		}
		switch kind {
		case "before":
			s.before += string(f.Data)
		case "after":
			s.after += string(f.Data)
		case "timeline":
			s.timelines[suite] = nonEmpty(string(f.Data))
		case "lost":
			s.lost[suite] = nonEmpty(string(f.Data))
		default:
			s.files = append(s.files, f)
		}
	}
	if len(s.timelines) == 0 || s.title == "" {
		return nil, fmt.Errorf("no title or no timeline")
	}
	return s, nil
}

func nonEmpty(text string) (lines []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// path is where a file of a scenario belongs.
func path(name string) string {
	switch {
	case strings.HasPrefix(name, "/"):
		return name
	case strings.HasSuffix(name, ".container"), strings.HasSuffix(name, ".kube"):
		return filepath.Join("/etc/containers/systemd", name)
	}
	return filepath.Join("/run/systemd/system", name)
}
