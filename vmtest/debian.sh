# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# For the fetch-*.sh, which set $name and source it: downloads Debian packages of
# any suite and architecture. The host's apt configuration and package database
# are neither used nor changed, except that its mirror and its proxy are taken.

cache=${SDTRACE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sdtrace}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { printf '%s: %s\n' "$name" "$*" >&2; }
die() { say "$*"; exit 1; }

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

# open_cache TOOL...: makes the cache and holds its lock until the script ends.
open_cache() {
	for tool in apt-get dpkg-deb flock "$@"; do
		PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null ||
			die "$tool is missing: this needs Debian, and what .ci/install-packages installs"
	done
	[ -r "$keyring" ] || die "$keyring is missing: install debian-archive-keyring"
	mkdir -p "$cache" || die "cannot write to $cache"
	cache=$(cd "$cache" && pwd)
	exec 9>"$cache/lock"
	flock 9
	rm -rf "$cache/apt"
}

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

# download_debs CONF DIR PACKAGE...: downloads the packages into DIR.
download_debs() {
	conf=$1 dir=$2
	shift 2
	say "downloading $*"
	(cd "$dir" && APT_CONFIG=$conf apt-get -qq download "$@" >log 2>&1) ||
		die "downloading $*: $(grep -m1 '^[EW]:' "$dir/log" || tail -n 1 "$dir/log")"
}
