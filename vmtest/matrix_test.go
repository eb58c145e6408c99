// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// decode takes the way of a real run: through go tool test2json.
func decode(t *testing.T, pkg, output string) []Outcome {
	t.Helper()
	convert := exec.Command("go", "tool", "test2json", "-p", pkg)
	convert.Stdin = strings.NewReader(strings.ReplaceAll(output, "^", "\x16"))
	events, err := convert.Output()
	if err != nil {
		t.Fatal(err)
	}
	outcomes, err := DecodeOutcomes(strings.NewReader(string(events)))
	if err != nil {
		t.Fatal(err)
	}
	return outcomes
}

func verdicts(outcomes []Outcome) map[string]Verdict {
	m := map[string]Verdict{}
	for _, o := range outcomes {
		m[o.Test] = o.Verdict
	}
	return m
}

func TestSkipIsAFailureUnlessNotDeclared(t *testing.T) {
	got := verdicts(decode(t, "p", `^=== RUN   TestDeclared
    a_test.go:5: not declared: needs 5.11
^--- SKIP: TestDeclared (0.00s)
^=== RUN   TestSilent
^--- SKIP: TestSilent (0.00s)
^=== RUN   TestElsewhere
    a_test.go:9: first log line
    a_test.go:10: no root, not declared: nothing
^--- SKIP: TestElsewhere (0.00s)
^=== NAME  
^PASS
`))
	want := map[string]Verdict{"TestDeclared": NotDeclared, "TestSilent": Skipped, "TestElsewhere": Skipped}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
	if !Skipped.Bad() || NotDeclared.Bad() {
		t.Error("Bad() does not tell the skips apart")
	}
}

func TestEndOfEveryTestIsTold(t *testing.T) {
	got := decode(t, "p", `^=== RUN   TestParallel
^=== RUN   TestParallel/a
^=== PAUSE TestParallel/a
^=== RUN   TestParallel/b
^=== PAUSE TestParallel/b
^=== CONT  TestParallel/a
^=== CONT  TestParallel/b
    a_test.go:5: not declared: b
^=== NAME  TestParallel/a
    a_test.go:6: wrong
^--- SKIP: TestParallel/b (0.00s)
^--- FAIL: TestParallel/a (0.00s)
^--- FAIL: TestParallel (0.00s)
^=== RUN   TestPrints
text without end of line^--- PASS: TestPrints (0.00s)
^=== RUN   TestDies
about to die
`)
	want := map[string]Verdict{
		"TestParallel": Failed, "TestParallel/a": Failed, "TestParallel/b": NotDeclared,
		"TestPrints": Passed, "TestDies": Unfinished,
	}
	if diff := cmp.Diff(want, verdicts(got)); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
	for _, o := range got {
		if o.Test == "TestParallel/a" && !strings.Contains(o.Output, "a_test.go:6: wrong\n") {
			t.Errorf("output of %s lacks its error: %q", o.Test, o.Output)
		}
	}
}

func TestDamagedEventsAreAnError(t *testing.T) {
	if _, err := DecodeOutcomes(strings.NewReader(`{"Action":"run","Test":"A"}` + "\noops")); err == nil {
		t.Error("no error")
	}
}

func TestMatrixShowsTestsByKernel(t *testing.T) {
	outcome := func(pkg, test string, v Verdict) Outcome { return Outcome{Package: pkg, Test: test, Verdict: v} }
	got := Matrix([]Column{
		{"5.10", []Outcome{
			outcome("p/a", "TestA", Passed),
			outcome("p/a", "TestA/x|y", Passed),
			outcome("p/a", "TestA/x|y/deep", Passed),
			outcome("p/a", "TestA/x|y/deeper", Skipped),
			outcome("p/a", "TestA/x|y/deepest", Failed),
			outcome("p/a", "TestC", NotDeclared),
			outcome("p/b", "TestA", Passed),
		}},
		{"6.1-amd64", []Outcome{
			outcome("p/a", "TestA", Passed),
			outcome("p/a", "TestA/new", Passed),
			outcome("p/a", "TestB", Failed),
			outcome("p/a", "TestC", Passed),
		}},
	})
	want := `| test    | 5.10 | 6.1-amd64 |
|---------|------|-----------|
| **p/a** |      |           |
| TestA   | ok   | ok        |
| – new   |      | ok        |
| TestB   |      | FAIL      |
| – x\|y  | SKIP |           |
| TestC   | n/d  | ok        |
| **p/b** |      |           |
| TestA   | ok   |           |
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}
