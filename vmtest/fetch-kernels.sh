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
cache=${SDTRACE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sdtrace}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { printf 'fetch-kernels: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

table() { grep -v -e '^#' -e '^[[:space:]]*$' "$here/kernels.txt"; }

# The archives in the host's apt sources, one URI a line.
host_archives() {
	cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
		sed -n 's/^deb[[:space:]]\{1,\}\(\[[^]]*\][[:space:]]*\)\{0,1\}\([^[:space:]]*\).*/\2/p'
	cat /etc/apt/sources.list.d/*.sources 2>/dev/null |
		sed -n 's/^URIs:[[:space:]]*\([^[:space:]]*\).*/\1/p'
}

mirror=$(host_archives | grep -E '/debian/?$' | head -n 1)
mirror=${mirror:-http://deb.debian.org/debian}
security=$(host_archives | grep -E '/debian-security/?$' | head -n 1)
security=${security:-http://deb.debian.org/debian-security}

# private_apt SUITE ARCH: an apt of its own for this suite; prints the path of
# its configuration file.
private_apt() {
	root=$cache/apt/$1-$2
	conf=$root/apt.conf
	if [ -e "$root/updated" ]; then
		echo "$conf"
		return
	fi
	mkdir -p "$root/etc/parts" "$root/state/lists/partial" "$root/cache/archives/partial"
	: >"$root/state/status"
	{
		echo "deb [arch=$2 signed-by=$keyring] $mirror $1 main"
		[ "$1" = sid ] ||
			echo "deb [arch=$2 signed-by=$keyring] $security $1-security main"
	} >"$root/etc/sources.list"
	{
		cat <<-CONF
			Dir::Etc::main "/dev/null";
			Dir::Etc::parts "$root/etc/parts";
			Dir::Etc::sourcelist "$root/etc/sources.list";
			Dir::Etc::sourceparts "$root/etc/parts";
			Dir::Etc::preferences "/dev/null";
			Dir::Etc::preferencesparts "$root/etc/parts";
			Dir::Etc::trusted "/dev/null";
			Dir::Etc::trustedparts "$root/etc/parts";
			Dir::State "$root/state";
			Dir::State::status "$root/state/status";
			Dir::Cache "$root/cache";
			APT::Architecture "$2";
			APT::Architectures { "$2"; };
			APT::Sandbox::User "$(id -un)";
			Acquire::Languages "none";
			Acquire::Retries "3";
			// A suite out of support is no longer signed anew.
			Acquire::Check-Valid-Until "false";
		CONF
		apt-config dump | grep -E '^Acquire::(https?|Check-Date)[: ]' || true
	} >"$conf"
	say "reading the package lists of $1 ($2) from $mirror"
	APT_CONFIG=$conf apt-get -qq update >"$root/log" 2>&1 && ! grep -q '^[EW]: .*Failed' "$root/log" ||
		die "apt-get update for $1 ($2) failed: $(grep -m1 '^[EW]:' "$root/log" || echo "see $root/log")"
	touch "$root/updated"
	echo "$conf"
}

# fetch_debs CONF DIR PACKAGE...: downloads the packages into DIR and unpacks
# them into DIR/root.
fetch_debs() {
	conf=$1 dir=$2
	shift 2
	say "downloading $*"
	(cd "$dir" && APT_CONFIG=$conf apt-get -qq download "$@" >log 2>&1) ||
		die "downloading $*: $(grep -m1 '^[EW]:' "$dir/log" || tail -n 1 "$dir/log")"
	for deb in "$dir"/*.deb; do
		dpkg-deb -x "$deb" "$dir/root" || die "unpacking $(basename "$deb") failed"
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

for tool in apt-get dpkg-deb depmod flock; do
	PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null || die "$tool is missing: this needs Debian with kmod installed"
done
[ -r "$keyring" ] || die "$keyring is missing: install debian-archive-keyring"
mkdir -p "$cache/kernels" || die "cannot write to $cache"
cache=$(cd "$cache" && pwd)
exec 9>"$cache/lock"
flock 9
rm -rf "$cache/apt" "$cache"/kernels/.*.?????? "$cache"/.virtme-ng.??????

for name in "$@"; do
	[ "$name" = virtme-ng ] || table | grep -q "^$name[[:space:]]" ||
		die "$name is not a kernel of kernels.txt"
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
while read -r name arch suite package _; do
	if wanted "$name"; then
		fetch_kernel "$name" "$arch" "$suite" "$package"
	fi
done <<-LIST
	$list
LIST
if wanted virtme-ng; then
	fetch_virtme
fi
# The package lists are a gigabyte and old by the next time.
rm -rf "$cache/apt"
