// SPDX-License-Identifier: Apache-2.0

package field_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sdtrace/sdtrace/internal/await"
	"github.com/sdtrace/sdtrace/vmtest"
	"github.com/sdtrace/sdtrace/vmtest/document"
)

const fieldGuide = "../../docs/field-guide.md"

// Every scenario comes to what it says it does, with the versions of every suite that it is
// for, and the guide tells the same. One that is to come to the same in all suites is played in the
// newest, and in all when make prove runs the tests or the guide is written.
func TestTheFieldIsAsTheGuideTells(t *testing.T) {
	needRoot(t)
	systems, err := readSystems()
	if err != nil {
		t.Fatal(err)
	}
	stages, sdtrace := bootAll(t)
	backend := "tracepoint"
	if list := os.Getenv("SDTRACE_BACKENDS"); list != "" {
		backend, _, _ = strings.Cut(list, ",")
	}
	recording := startCapture(t, sdtrace, backend, stages)
	g := &guide{systems: systems, stages: stages, played: map[string]map[string][]line{}}
	for _, s := range stages {
		g.played[s.suite] = map[string][]line{}
	}
	missing := false
	t.Run("scenarios", func(t *testing.T) {
		for _, s := range stages {
			t.Run(s.suite, func(t *testing.T) {
				t.Parallel()
				for _, scenario := range slices.Concat(scenariosOf(systems)...) {
					want, wantLost, ok := scenario.timeline(s.suite)
					if !ok || inVM && !scenario.inVM() || scenario.isTheSame() && s.suite != suites[len(suites)-1] && !playsAll() {
						continue
					}
					t.Run(scenario.name, func(t *testing.T) {
						lines := s.play(t, scenario, want, wantLost)
						g.played[s.suite][scenario.name] = lines
						for _, wrong := range s.wrong {
							t.Error(wrong)
						}
						s.wrong = nil
						if recording.follows && !t.Failed() {
							ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
							defer cancel()
							if diff := cmp.Diff(wantLost, recording.awaitWithheld(ctx, lines, wantLost)); diff != "" {
								t.Errorf("what sdtrace says was not passed on (-want +got):\n%s", diff)
							}
						}
					})
				}
			})
		}
	})
	for _, s := range stages {
		for _, scenario := range slices.Concat(scenariosOf(systems)...) {
			if g.played[s.suite][scenario.name] == nil && scenario.isTheSame() {
				g.played[s.suite][scenario.name] = g.played[suites[len(suites)-1]][scenario.name]
			}
			if _, _, ok := scenario.timeline(s.suite); ok && g.played[s.suite][scenario.name] == nil {
				missing = true
			}
		}
	}
	if missing {
		t.Log("not all scenarios were played: the guide is not looked at")
		return
	}
	if t.Failed() {
		return
	}
	document.Check(t, fieldGuide, "scenarios", g.render(t))
}

// playsAll says that each scenario is played in all suites.
func playsAll() bool { return vmtest.All() || document.Updates() }

func scenariosOf(systems []system) (all [][]*scenario) {
	for _, s := range systems {
		all = append(all, s.scenarios)
	}
	return all
}
