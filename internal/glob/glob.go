// SPDX-License-Identifier: Apache-2.0

// Package glob matches text as bpf/glob.h does in the kernel.
package glob

// Match reports whether the whole text matches a pattern: "*" is any run of bytes, "?" one
// byte, the rest itself.
func Match(pattern, text string) bool {
	pi, ti, starPi, starTi := 0, 0, -1, 0
	for ti < len(text) || pi < len(pattern) {
		switch {
		case pi < len(pattern) && pattern[pi] == '*':
			pi++
			starPi, starTi = pi, ti
		case pi < len(pattern) && ti < len(text) && (pattern[pi] == '?' || pattern[pi] == text[ti]):
			pi++
			ti++
		case starPi >= 0 && starTi < len(text):
			starTi++
			pi, ti = starPi, starTi
		default:
			return false
		}
	}
	return true
}

// MatchAny reports whether one of the patterns matches.
func MatchAny(patterns []string, text string) bool {
	for _, pattern := range patterns {
		if Match(pattern, text) {
			return true
		}
	}
	return false
}
