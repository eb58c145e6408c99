// SPDX-License-Identifier: Apache-2.0

package vmtest

// Job tells vmtest/init what to run inside the machine; it travels as JSON.
type Job struct {
	// Tests are run one after the other.
	Tests []Test
	// Env is the whole environment of each test, in the form of os.Environ.
	Env []string
	// Output is the file that receives the report, empty for standard output.
	Output string
}

// Test is one compiled test binary. Paths are those inside the machine.
type Test struct {
	// Package is the import path, the name of the test in the report.
	Package string
	// Binary is the executable, Dir its working directory.
	Binary, Dir string
	// Args are passed to the binary.
	Args []string
}

// JobFile is where tier 1's initramfs holds the Job.
const JobFile = "/vmtest.json"

// Mark begins every line of the report that vmtest/init itself writes. What
// follows is one of the Mark… words and its operands:
//
//	kernel RELEASE
//	start PACKAGE
//	exit PACKAGE STATUS SECONDS
//	kmsg LEVEL TEXT
//	end
//
// Every other line is output of the test started last.
const Mark = "@@vmtest "

// The words after [Mark].
const (
	MarkKernel = "kernel"
	MarkStart  = "start"
	MarkExit   = "exit"
	MarkKmsg   = "kmsg"
	MarkEnd    = "end"
)
