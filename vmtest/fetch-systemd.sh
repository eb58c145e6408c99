#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Makes root file systems with a systemd and what it depends on, once, in a cache
# outside the tree. The packages are unpacked, not installed: none of their scripts
# is run. Needs no root.
#
#   fetch-systemd.sh [NAME...]
#
# NAME is SUITE, SUITE-programs or SUITE-runtimes. SUITE is Debian's; without one: bookworm (systemd 252), trixie (257) and sid (the
# newest), with nothing but systemd, about 14 MB and five seconds each. With -programs
# there are a shell, perl, su and sudo, which are 20 MB more. With -runtimes
# there are a message bus, a shell, runc, crun, podman, docker and containerd, too:
# about 500 MB and a minute.
#
# Result: $CACHE/systemd/NAME/{root,version,versions}: systemd's version, and those of
# all packages. A directory is there only when it is complete. It is never updated;
# delete it to get the present versions.

set -eu

name=fetch-systemd
. "$(dirname "$0")/debian.sh"

[ $# -gt 0 ] || set -- bookworm trixie sid

packages_of() { # NAME
	echo systemd
	case $1 in
	*-programs) echo dash coreutils util-linux sudo perl-base ;;
	*-runtimes)
		echo systemd-container libpam-systemd dbus dash bash coreutils util-linux procps grep sed
		echo runc crun conmon podman catatonit docker.io containerd
		# The client of docker is in docker.io up to bookworm.
		[ "${1%-runtimes}" = bookworm ] || echo docker-cli
		;;
	esac
}

# The packages and all they depend on, in an otherwise empty system.
closure() { # CONF PACKAGE...
	conf=$1
	shift
	APT_CONFIG=$conf apt-get --simulate --no-install-recommends install "$@" |
		sed -n 's/^Inst \([^ ]*\) .*/\1/p'
}

unpack() { # ROOT DEB
	# Older packages still have files below /bin and /lib, which are links.
	dpkg-deb --fsys-tarfile "$2" | tar -C "$1" -x --no-same-owner --keep-directory-symlink \
		--exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' \
		--exclude='./usr/share/perl5/*' --exclude='*/gconv/*' --exclude='*/hwdb.d/*' ||
		die "unpacking $(basename "$2") failed"
}

# What the packages' scripts would have made.
configure() { # ROOT
	root=$1
	mkdir -p "$root/dev" "$root/proc" "$root/run" "$root/sys" "$root/tmp" "$root/root" "$root/var/tmp" "$root/etc/pam.d"
	cat >"$root/etc/passwd" <<-END
		root:x:0:0:root:/root:/bin/sh
		messagebus:x:101:101::/nonexistent:/usr/sbin/nologin
		web:x:1000:1000::/tmp:/bin/sh
		nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
	END
	cat >"$root/etc/group" <<-END
		root:x:0:
		messagebus:x:101:
		docker:x:102:
		web:x:1000:
		nogroup:x:65534:
	END
	for stack in account auth password session session-noninteractive; do
		echo "${stack%-noninteractive} required pam_permit.so" >"$root/etc/pam.d/common-$stack"
	done
	# Without an id this would be a first boot, which enables units.
	echo 5d7ace0000000000000000000005d7ac >"$root/etc/machine-id"
	[ ! -e "$root/usr/bin/dash" ] || ln -sf dash "$root/usr/bin/sh"
}

fetch_root() { # NAME
	dest=$cache/systemd/$1
	if [ -e "$dest/versions" ]; then
		return
	fi
	conf=$(private_apt "${1%%-*}" "$(dpkg --print-architecture)")
	# shellcheck disable=SC2046 # one word a package
	packages=$(closure "$conf" $(packages_of "$1"))
	[ -n "$packages" ] || die "$1: apt finds no way to install $(packages_of "$1" | tr '\n' ' ')"
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
		dpkg-deb --show --showformat '${Package} ${Version}\n' "$deb"
	done >"$tmp/done/versions"
	configure "$root"
	sed -n 's/^systemd //p' "$tmp/done/versions" >"$tmp/done/version"
	rm -rf "$dest"
	mv "$tmp/done" "$dest"
	rm -rf "$tmp"
	trap - EXIT
	say "systemd of $1 is $(cat "$dest/version")"
}

# Of the names, those that are not there. In a machine the cache is the host's, in which another one of these may be at
# work: what is complete is not touched, and nothing else is then.
missing() {
	for root_name in "$@"; do
		[ -e "$cache/systemd/$root_name/versions" ] || echo "$root_name"
	done
}

[ -n "$(missing "$@")" ] || exit 0
open_cache tar
mkdir -p "$cache/systemd"
rm -rf "$cache"/systemd/.*.??????
for root_name in "$@"; do
	fetch_root "$root_name"
done
rm -rf "$cache/apt"
