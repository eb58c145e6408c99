#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Makes root file systems with nothing but a systemd and what it depends on, once,
# in a cache outside the tree: about 14 MB and five seconds each. The packages are
# unpacked, not installed: none of their scripts is run. Needs no root.
#
#   fetch-systemd.sh [SUITE...]     suites of Debian; without one: bookworm
#                                   (systemd 252), trixie (257) and sid (the newest)
#
# Result: $CACHE/systemd/SUITE/{root,version}. A directory is there only when it
# is complete. It is never updated; delete it to get the present version.

set -eu

name=fetch-systemd
. "$(dirname "$0")/debian.sh"

[ $# -gt 0 ] || set -- bookworm trixie sid

# The package and all it depends on, in an otherwise empty system.
closure() { # CONF PACKAGE
	APT_CONFIG=$1 apt-get --simulate --no-install-recommends install "$2" |
		sed -n 's/^Inst \([^ ]*\) .*/\1/p'
}

unpack() { # ROOT DEB
	# Older packages still have files below /bin and /lib, which are links.
	dpkg-deb --fsys-tarfile "$2" | tar -C "$1" -x --no-same-owner --keep-directory-symlink \
		--exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' \
		--exclude='./usr/share/perl5/*' --exclude='*/gconv/*' --exclude='*/hwdb.d/*' ||
		die "unpacking $(basename "$2") failed"
}

fetch_root() { # SUITE
	dest=$cache/systemd/$1
	if [ -e "$dest/version" ]; then
		return
	fi
	conf=$(private_apt "$1" "$(dpkg --print-architecture)")
	packages=$(closure "$conf" systemd)
	[ -n "$packages" ] || die "$1: apt finds no way to install systemd"
	tmp=$(mktemp -d "$cache/systemd/.$1.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	# shellcheck disable=SC2086 # one word a package
	download_debs "$conf" "$tmp" $packages

	root=$tmp/done/root
	mkdir -p "$root/etc" "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib" "$root/usr/lib64"
	for dir in bin sbin lib lib64; do
		ln -s "usr/$dir" "$root/$dir"
	done
	for deb in "$tmp"/*.deb; do
		unpack "$root" "$deb"
	done
	mkdir -p "$root/dev" "$root/proc" "$root/run" "$root/sys" "$root/tmp" "$root/root" "$root/var/tmp"
	echo root:x:0:0:root:/root:/bin/sh >"$root/etc/passwd"
	echo root:x:0: >"$root/etc/group"
	# Without an id this would be a first boot, which enables units.
	echo 5d7ace0000000000000000000005d7ac >"$root/etc/machine-id"
	APT_CONFIG=$conf apt-cache show --no-all-versions systemd |
		sed -n 's/^Version: //p' >"$tmp/done/version"
	rm -rf "$dest"
	mv "$tmp/done" "$dest"
	rm -rf "$tmp"
	trap - EXIT
	say "systemd of $1 is $(cat "$dest/version")"
}

open_cache tar
mkdir -p "$cache/systemd"
rm -rf "$cache"/systemd/.*.??????
for suite in "$@"; do
	fetch_root "$suite"
done
rm -rf "$cache/apt"
