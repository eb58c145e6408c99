#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Makes the objects and the Go that loads them of the C in this directory, in DIR (default:
# here) and its folders. All of them are made aside and moved when the last one is there, so
# that what stood in DIR stays when one fails.
#
#	generate.sh [DIR]
set -eu
cd "$(dirname "$0")"
to=${1:-.}
aside=$(mktemp -d)
trap 'rm -rf "$aside"' EXIT
mkdir "$aside/unit" "$aside/pair"

make_object() { # GO-NAME FILE [-type TYPE]...
	name=$1 file=$2
	shift 2
	package=$(basename "$(dirname "bpf/$file")")
	go tool bpf2go -go-package "$package" -target amd64,arm64 -cc clang-14 -strip llvm-strip-14 \
		-output-dir "$aside/$(dirname "$file")" -output-stem "$(basename "$file")" "$@" \
		"$name" "$file.bpf.c" -- -mcpu=v3 -Wall -Werror -I. >/dev/null
}
make_object Fentry fentry -type event -type receipt -type record_type -type event_flag -type fd_kind -type counter -type call
make_object Tracepoint tracepoint
make_object Queues queues -type queue
make_object Unit unit/unit -type event_flag
make_object Pair pair/pair
mkdir -p "$to/unit" "$to/pair"
mv "$aside"/*_bpfel.* "$to"
mv "$aside"/unit/*_bpfel.* "$to/unit"
mv "$aside"/pair/*_bpfel.* "$to/pair"
