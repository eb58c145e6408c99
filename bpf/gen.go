// SPDX-License-Identifier: Apache-2.0

// Package bpf holds the programs that capture datagrams in the kernel and,
// generated from them by bpf2go, the objects and the Go types to load them with.
// The C is GPL-2.0-only, as the helpers it calls demand.
//
// The objects are committed, so that building needs no clang; its version is fixed,
// because another one makes other objects of the same C.
package bpf

//go:generate ./generate.sh
