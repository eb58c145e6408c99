// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package document holds generated documents against what a fresh run says, so
// that what stands in them is what the programs do. With -update a test writes
// them anew.
package document

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write generated documents anew instead of comparing them")

// Updates reports whether documents are written anew.
func Updates() bool { return *update }

// Check fails t if the section of the file does not say what fresh does, and with
// -update writes it anew. The file is named as seen from the test's directory. Of
// the differences only those that [Normalize] leaves count. The section is what
// stands between the lines
//
//	<!-- NAME: generated -->
//	<!-- NAME: end -->
//
// which have to be there once each; if it is "", it is the whole file.
func Check(t testing.TB, file, section, fresh string) {
	t.Helper()
	if *update {
		if err := Write(file, section, fresh); err != nil {
			t.Errorf("writing a document anew: %v", err)
		}
		return
	}
	diff, err := compare(file, section, fresh)
	if err != nil {
		t.Errorf("comparing a document: %v\nTo write it anew: %s", err, updating(t.Name()))
		return
	}
	if diff != "" {
		t.Errorf("%s says something else than this run (-document +run):\n%s\nTo write it anew: %s", file, diff, updating(t.Name()))
	}
}

// Holds reports whether a text stands in a file, but for differences that [Normalize] takes away.
func Holds(t testing.TB, file, text string) bool {
	t.Helper()
	all, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(Normalize(string(all)), Normalize(text))
}

// compare returns the normalized lines in which a document differs from fresh.
func compare(file, section, fresh string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	document := string(text)
	if section != "" {
		_, document, _, err = cutSection(document, section)
		if err != nil {
			return "", fmt.Errorf("%s: %w", file, err)
		}
	}
	return cmp.Diff(lines(document), lines(fresh)), nil
}

func lines(text string) []string {
	return strings.Split(strings.TrimSuffix(Normalize(text), "\n"), "\n")
}

// Write puts fresh into a section of a document, or makes it the whole document if the
// section is "". Several programs may write different sections of one file at the same
// time. The error says which mark is missing, or why the file cannot be written.
func Write(file, section, fresh string) (err error) {
	flags := os.O_RDWR
	if section == "" {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(file, flags, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", file, err)
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	fresh = strings.TrimSuffix(fresh, "\n") + "\n"
	if section != "" {
		before, _, after, err := cutSection(string(text), section)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		fresh = before + fresh + after
	}
	if _, err := f.WriteAt([]byte(fresh), 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(fresh)))
}

// cutSection cuts a text around a section. The lines that mark it stay outside.
func cutSection(text, name string) (before, section, after string, err error) {
	begin, end := "<!-- "+name+": generated -->\n", "<!-- "+name+": end -->\n"
	for _, mark := range []string{begin, end} {
		if n := strings.Count(text, mark); n != 1 {
			return "", "", "", fmt.Errorf("the line %s stands there %d times, want once", strings.TrimSpace(mark), n)
		}
	}
	before, rest, _ := strings.Cut(text, begin)
	section, after, found := strings.Cut(rest, end)
	if !found {
		return "", "", "", fmt.Errorf("section %s ends before it begins", name)
	}
	return before + begin, section, end + after, nil
}

// updating is the command that writes the documents of a test anew.
func updating(test string) string {
	return fmt.Sprintf("CGO_ENABLED=0 go test %s -count=1 -run '^%s$' -update", packagePath(), strings.ReplaceAll(test, "/", "$/^"))
}

// packagePath is the directory of the test as seen from the root of the module.
func packagePath() string {
	dir, err := os.Getwd()
	if err != nil {
		return "."
	}
	for root := dir; ; root = filepath.Dir(root) {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			return "." + strings.TrimPrefix(dir, root)
		}
		if root == filepath.Dir(root) {
			return "."
		}
	}
}
