// SPDX-License-Identifier: Apache-2.0

// Package unit runs the functions of the headers in package bpf by themselves, each in a program
// of its own. Only its tests use it.
package unit
