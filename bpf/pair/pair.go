// SPDX-License-Identifier: Apache-2.0

// Package pair holds programs that pair the entry of a function with its end by a hash map, as other tracers do, to
// measure them beside those of package bpf. Only package bench uses it.
package pair
