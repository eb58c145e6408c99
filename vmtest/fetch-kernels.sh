#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Downloads the kernels of kernels.txt and virtme-ng, once, into a cache
# outside the tree. The host's apt configuration and package database are
# neither used nor changed, except that its mirror and its proxy are taken.
#
#   fetch-kernels.sh [NAME...]     kernels to fetch, and "virtme-ng";
#                                  without a name: everything
#
# Result: $CACHE/kernels/NAME/{vmlinuz,version} (amd64: lib/modules/RELEASE too)
# and $CACHE/virtme-ng. A directory is there only when it is complete.

set -eu

here=$(cd "$(dirname "$0")" && pwd)
name=fetch-kernels
. "$here/debian.sh"

table() { grep -v -e '^#' -e '^[[:space:]]*$' "$here/kernels.txt"; }

# fetch_debs CONF DIR PACKAGE...: downloads the packages into DIR and unpacks
# them into DIR/root.
fetch_debs() {
	download_debs "$@"
	for deb in "$2"/*.deb; do
		dpkg-deb -x "$deb" "$2/root" || die "unpacking $(basename "$deb") failed"
		rm "$deb"
	done
}

# The packages that make up a kernel: what the metapackage depends on, and what
# those depend on in turn (since 7.x the image is linux-binary-*, the modules
# linux-modules-*).
kernel_packages() { # CONF METAPACKAGE
	APT_CONFIG=$1 apt-cache depends --recurse --important "$2" |
		sed -n 's/^[ |]*\(Pre\)\{0,1\}Depends: \(linux-\(image\|binary\|modules\)-[^ ]*\)$/\2/p' |
		sort -u
}

fetch_kernel() { # NAME ARCH SUITE PACKAGE
	dest=$cache/kernels/$1
	if [ -e "$dest/version" ]; then
		return
	fi
	conf=$(private_apt "$3" "$2")
	packages=$(kernel_packages "$conf" "$4")
	[ -n "$packages" ] || die "$1: $4 of $3 depends on no kernel"
	tmp=$(mktemp -d "$cache/kernels/.$1.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	# shellcheck disable=SC2086 # one word a package
	fetch_debs "$conf" "$tmp" $packages

	vmlinuz=$(find "$tmp/root" -type f -name 'vmlinuz*' | head -n 1)
	[ -n "$vmlinuz" ] || die "$1: no vmlinuz in $packages"
	modules=$(find "$tmp/root" -type d -path '*/lib/modules/*' -prune | head -n 1)
	[ -n "$modules" ] || die "$1: no modules in $packages"
	release=$(basename "$modules")
	mkdir "$tmp/done"
	cp "$vmlinuz" "$tmp/done/vmlinuz"
	if [ "$2" = amd64 ]; then
		mkdir -p "$tmp/done/lib/modules"
		mv "$modules" "$tmp/done/lib/modules/"
		PATH=$PATH:/usr/sbin:/sbin depmod -b "$tmp/done" "$release" 2>"$tmp/log" ||
			die "$1: depmod: $(tail -n 1 "$tmp/log")"
	fi
	echo "$release" >"$tmp/done/version"
	rm -rf "$dest"
	mv "$tmp/done" "$dest"
	rm -rf "$tmp"
	trap - EXIT
	say "$1 is $release"
}

fetch_virtme() {
	dest=$cache/virtme-ng
	if [ -e "$dest/version" ]; then
		return
	fi
	conf=$(private_apt trixie "$(dpkg --print-architecture)")
	tmp=$(mktemp -d "$cache/.virtme-ng.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	fetch_debs "$conf" "$tmp" virtme-ng
	APT_CONFIG=$conf apt-cache show --no-all-versions virtme-ng |
		sed -n 's/^Version: //p' >"$tmp/root/version"
	rm -rf "$dest"
	mv "$tmp/root" "$dest"
	rm -rf "$tmp"
	trap - EXIT
	say "virtme-ng is $(cat "$dest/version")"
}

open_cache depmod
mkdir -p "$cache/kernels"
rm -rf "$cache"/kernels/.*.?????? "$cache"/.virtme-ng.??????

for kernel in "$@"; do
	[ "$kernel" = virtme-ng ] || table | grep -q "^$kernel[[:space:]]" ||
		die "$kernel is not a kernel of kernels.txt"
done
wanted() {
	[ "$all" = yes ] && return
	for w in $names; do
		[ "$w" = "$1" ] && return
	done
	return 1
}
all=no names=$*
[ $# -gt 0 ] || all=yes

list=$(table)
while read -r kernel arch suite package _; do
	if wanted "$kernel"; then
		fetch_kernel "$kernel" "$arch" "$suite" "$package"
	fi
done <<-LIST
	$list
LIST
if wanted virtme-ng; then
	fetch_virtme
fi
# The package lists are a gigabyte and old by the next time.
rm -rf "$cache/apt"
