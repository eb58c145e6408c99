// SPDX-License-Identifier: Apache-2.0

//go:build linux

package conformance

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, p := range r.Points {
		word := "ok  "
		switch {
		case p.Skipped:
			word = "skip"
		case !p.OK:
			word = "FAIL"
		}
		fmt.Fprintf(&b, "%s  %s%s\n", word, p.Name, p.took())
		for _, detail := range p.Details {
			fmt.Fprintf(&b, "      %s\n", events.Escape(detail))
		}
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "note  %s\n", events.Escape(note))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (p *Point) took() string {
	if p.Took == 0 {
		return ""
	}
	return fmt.Sprintf(" (%s)", p.Took.Round(time.Millisecond))
}

// WriteTAP writes the report by the Test Anything Protocol, version 13.
func (r *Report) WriteTAP(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "TAP version 13\n1..%d\n", len(r.Points))
	for i, p := range r.Points {
		word, directive := "ok", ""
		switch {
		case p.Skipped:
			directive = " # SKIP"
		case !p.OK:
			word = "not ok"
		}
		fmt.Fprintf(&b, "%s %d - %s%s\n", word, i+1, strings.ReplaceAll(p.Name, "#", "\\#"), directive)
		for _, detail := range p.Details {
			fmt.Fprintf(&b, "# %s\n", events.Escape(detail))
		}
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "# note: %s\n", events.Escape(note))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// The elements of a JUnit report that readers agree on.
type (
	junitSuite struct {
		XMLName  xml.Name    `xml:"testsuite"`
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string    `xml:"classname,attr"`
		Name    string    `xml:"name,attr"`
		Seconds string    `xml:"time,attr"`
		Failure *junitWhy `xml:"failure"`
		Skipped *junitWhy `xml:"skipped"`
		Output  string    `xml:"system-out,omitempty"`
	}
	junitWhy struct {
		Message string `xml:"message,attr"`
	}
)

// WriteJUnit writes the report as the XML that JUnit has made the custom. name is that of the application.
func (r *Report) WriteJUnit(w io.Writer, name string) error {
	suite := junitSuite{Name: events.Escape(name), Tests: len(r.Points)}
	for _, p := range r.Points {
		details := events.Escape(strings.Join(p.Details, "; "))
		c := junitCase{Class: suite.Name, Name: p.Name, Seconds: fmt.Sprintf("%.3f", p.Took.Seconds())}
		switch {
		case p.Skipped:
			suite.Skipped++
			c.Skipped = &junitWhy{details}
		case !p.OK:
			suite.Failures++
			c.Failure = &junitWhy{details}
		default:
			c.Output = details
		}
		suite.Cases = append(suite.Cases, c)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	encoder := xml.NewEncoder(w)
	encoder.Indent("", "  ")
	if err := encoder.Encode(suite); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
