// SPDX-License-Identifier: Apache-2.0

// Package identity tells systemd units, containers and pods apart by the names
// that service managers and container runtimes give to their cgroups.
package identity

import "strings"

// Identity is what a cgroup path says about the processes in that cgroup. A
// field is empty when the path does not say it.
type Identity struct {
	// Unit is the unit of the system's service manager.
	Unit string
	// UserUnit is the unit of a user's service manager, when Unit is one
	// (user@UID.service).
	UserUnit string
	// Slice is the slice that Unit is in: the last of the slices above it.
	Slice string
	// Runtime is "docker", "podman", "containerd", "cri-o", "lxc" or "nspawn".
	// It can be empty although ContainerID is not: several runtimes make
	// cgroups named by nothing but the container's id.
	Runtime string
	// ContainerID is the container's id of 64 hexadecimal digits or, for lxc and
	// nspawn, its name. Of nested containers it is the innermost.
	ContainerID string
	// PodUID is the UID of the Kubernetes pod, with dashes. Static pods have one
	// of 32 hexadecimal digits without.
	PodUID string
}

// Parse reads the identity off a cgroup path as the host sees it: relative to
// the root of the hierarchy, not to a cgroup namespace. Units are found by the
// rules of systemd's cg_path_get_unit and cg_path_get_user_unit, so a service
// manager inside a container does not change what the host's calls it.
func Parse(cgroup string) Identity {
	var id Identity
	units := unitScan{id: &id}
	containers := containerScan{id: &id}
	for component := range strings.SplitSeq(cgroup, "/") {
		if component == "" {
			continue
		}
		units.next(component)
		containers.next(component)
	}
	return id
}

// unitScan walks the leading components, which belong to service managers.
type unitScan struct {
	id     *Identity
	inUser bool // below user@UID.service
	done   bool
}

func (s *unitScan) next(component string) {
	if s.done {
		return
	}
	name := unescapeUnit(component)
	switch {
	case isUnit(name, ".slice"):
		if !s.inUser {
			s.id.Slice = name
		}
	case !hasCgroup(name):
		s.done = true
	case s.inUser:
		s.id.UserUnit = name
		s.done = true
	default:
		s.id.Unit = name
		s.inUser = isUserManager(name)
		s.done = !s.inUser
	}
}

// unescapeUnit undoes systemd's cg_escape, which puts "_" before a unit name
// that would collide with a file of the kernel's, such as "cpu.service".
func unescapeUnit(component string) string {
	return strings.TrimPrefix(component, "_")
}

// hasCgroup reports whether name is that of a unit which has processes.
func hasCgroup(name string) bool {
	for _, suffix := range processUnits {
		if isUnit(name, suffix) {
			return true
		}
	}
	return false
}

var processUnits = [...]string{".service", ".scope", ".socket", ".mount", ".swap"}

// unitNameMax is systemd's UNIT_NAME_MAX less the terminating NUL, in bytes.
const unitNameMax = 255

// isUnit follows systemd's unit_name_is_valid: a plain name or an instance, but
// not a template, as those have no cgroup.
func isUnit(name, suffix string) bool {
	prefix, ok := strings.CutSuffix(name, suffix)
	if !ok || prefix == "" || len(name) > unitNameMax {
		return false
	}
	for i := range len(prefix) {
		if !isUnitByte(prefix[i]) {
			return false
		}
	}
	at := strings.IndexByte(prefix, '@')
	return at == -1 || at > 0 && at < len(prefix)-1
}

func isUnitByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		strings.IndexByte(`:-_.\@`, c) >= 0
}

func isUserManager(unit string) bool {
	uid, ok := strings.CutPrefix(unit, "user@")
	if !ok {
		return false
	}
	uid, ok = strings.CutSuffix(uid, ".service")
	if !ok || uid == "" {
		return false
	}
	for i := range len(uid) {
		if uid[i] < '0' || uid[i] > '9' {
			return false
		}
	}
	return true
}

// containerScan looks at each component in the light of those above it.
type containerScan struct {
	id         *Identity
	above      string // the component before
	inKubepods bool   // below the kubelet's cgroupfs root
}

func (s *containerScan) next(component string) {
	defer func() { s.above = component }()

	if isConmon(component) {
		// The monitor lives in the pod's slice, beside the containers.
		s.id.PodUID = ""
		return
	}
	if component == "kubepods" {
		s.inKubepods = true
		return
	}
	if uid, ok := s.pod(component); ok {
		s.id.PodUID = uid
		return
	}
	if runtime, name, ok := s.container(component); ok {
		s.id.Runtime, s.id.ContainerID = runtime, name
	}
}

func (s *containerScan) container(component string) (runtime, name string, ok bool) {
	switch {
	case s.above == "lxc", s.above == "lxc.payload":
		return "lxc", component, true
	case strings.HasPrefix(component, lxcPayload):
		name = component[len(lxcPayload):]
		return "lxc", name, name != ""
	case component == "payload":
		// machined names the scope of a virtual machine alike, but only nspawn
		// puts its guest into a cgroup of this name.
		name = nspawnMachine(s.above)
		return "nspawn", name, name != ""
	case IsContainerID(component):
		if s.above == "docker" {
			runtime = "docker"
		}
		return runtime, component, true
	}
	return s.prefixed(component)
}

const lxcPayload = "lxc.payload."

// prefixes are what runtimes put before a container's id: those that talk to
// systemd make a scope of it, those that write to cgroupfs take it bare.
var prefixes = [...]struct {
	prefix, runtime string
	scope, bare     bool
}{
	{prefix: "docker", runtime: "docker", scope: true},
	{prefix: "libpod", runtime: "podman", scope: true, bare: true},
	{prefix: "libpod-payload", runtime: "podman", bare: true}, // podman run --cgroups=split, Quadlet
	{prefix: "cri-containerd", runtime: "containerd", scope: true},
	{prefix: "nerdctl", runtime: "containerd", scope: true},
	{prefix: "crio", runtime: "cri-o", scope: true, bare: true},
}

// prefixed recognizes "PREFIX-ID.scope", "PREFIX-ID" and "SLICE:PREFIX:ID", the
// last being what a runtime makes of a path meant for systemd when it writes
// to cgroupfs itself.
func (s *containerScan) prefixed(component string) (runtime, name string, ok bool) {
	rest, isScope := strings.CutSuffix(component, ".scope")
	cut := len(rest) - containerIDLen
	if cut < 1 || !IsContainerID(rest[cut:]) {
		return "", "", false
	}
	prefix, separator, name := rest[:cut-1], rest[cut-1], rest[cut:]
	if separator == ':' {
		var slice string
		slice, prefix, ok = strings.Cut(prefix, ":")
		if !ok || isScope || !strings.HasSuffix(slice, ".slice") {
			return "", "", false
		}
		if uid, ok := podSlice(slice); ok {
			s.id.PodUID = uid
		}
	} else if separator != '-' {
		return "", "", false
	}
	for _, known := range prefixes {
		if known.prefix == prefix {
			return known.runtime, name, separator == ':' || isScope && known.scope || !isScope && known.bare
		}
	}
	return "", "", false
}

func isConmon(component string) bool {
	return strings.HasPrefix(component, "crio-conmon-") || strings.HasPrefix(component, "libpod-conmon-")
}

// containerIDLen is the length of an id in hexadecimal digits.
const containerIDLen = 64

// IsContainerID reports whether s has the form of the ids that docker, podman, containerd
// and CRI-O draw by lot: 64 lower-case hexadecimal digits.
func IsContainerID(s string) bool { return len(s) == containerIDLen && isHex(s) }

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}

func (s *containerScan) pod(component string) (uid string, ok bool) {
	if s.inKubepods {
		if uid, ok = strings.CutPrefix(component, "pod"); ok && isPodUID(uid) {
			return uid, true
		}
	}
	return podSlice(component)
}

// podSlice reads the UID off the slice that the kubelet's systemd driver makes
// for a pod: [PARENT-]kubepods[-QOS]-podUID.slice with "_" for each dash.
func podSlice(component string) (uid string, ok bool) {
	name, ok := strings.CutSuffix(component, ".slice")
	if !ok {
		return "", false
	}
	at := strings.LastIndex(name, "-pod")
	if at < 0 {
		return "", false
	}
	parent, escaped := name[:at], name[at+len("-pod"):]
	parent = strings.TrimSuffix(strings.TrimSuffix(parent, "-burstable"), "-besteffort")
	if parent != "kubepods" && !strings.HasSuffix(parent, "-kubepods") {
		return "", false
	}
	// A dash in a slice's name is a level of slices, never one of the UID's.
	if strings.Contains(escaped, "-") {
		return "", false
	}
	uid = strings.ReplaceAll(escaped, "_", "-")
	return uid, isPodUID(uid)
}

// isPodUID accepts a UUID and the 32 digits of a static pod's hash.
func isPodUID(s string) bool {
	if len(s) == 32 {
		return isHex(s)
	}
	if len(s) != 36 {
		return false
	}
	return s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' &&
		isHex(s[:8]) && isHex(s[9:13]) && isHex(s[14:18]) && isHex(s[19:23]) && isHex(s[24:])
}

// nspawnMachine reads the machine's name off the unit that nspawn runs in, or
// returns "".
func nspawnMachine(unit string) string {
	if name, ok := strings.CutPrefix(unit, "machine-"); ok {
		if name, ok = strings.CutSuffix(name, ".scope"); ok {
			return unescapeHex(name)
		}
	}
	if name, ok := strings.CutPrefix(unit, "systemd-nspawn@"); ok {
		if name, ok = strings.CutSuffix(name, ".service"); ok {
			return unescapeHex(name)
		}
	}
	return ""
}

// unescapeHex undoes the \xNN of systemd's unit_name_escape. It leaves "-"
// alone, which that makes of "/", as no machine name holds one.
func unescapeHex(s string) string {
	if !strings.Contains(s, `\x`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && s[i+1] == 'x' {
			hi, lo := hexDigit(s[i+2]), hexDigit(s[i+3])
			if hi >= 0 && lo >= 0 {
				b.WriteByte(byte(hi<<4 | lo))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func hexDigit(c byte) int { return strings.IndexByte("0123456789abcdef", c) }
