// SPDX-License-Identifier: Apache-2.0

// Package identity tells systemd units, containers and pods apart by the names
// that service managers and container runtimes give to their cgroups.
package identity

import (
	"strings"

	"github.com/sdtrace/sdtrace/pkg/events"
)

// Parse reads the identity off a cgroup path as the host sees it: relative to
// the root of the hierarchy, not to a cgroup namespace. Units are found by the
// rules of systemd's cg_path_get_unit and cg_path_get_user_unit, so they are those of the
// host's service managers; [Managers] knows of others.
func Parse(cgroup string) events.Identity {
	id := events.Identity{Cgroup: cgroup}
	var container events.Container
	units := unitScan{id: &id}
	containers := containerScan{container: &container}
	for component := range strings.SplitSeq(cgroup, "/") {
		if component == "" {
			continue
		}
		units.next(component)
		containers.next(component)
	}
	if container != (events.Container{}) {
		id.Container = &container
	}
	return id
}

// UnitNames returns the names of the units that a service manager with the root "/" has on the
// way to a cgroup: slices, the unit, and of a user's manager the same below.
func UnitNames(cgroup string) []string {
	var id events.Identity
	var names []string
	units := unitScan{id: &id, found: func(name string) { names = append(names, name) }}
	for component := range strings.SplitSeq(cgroup, "/") {
		if component != "" {
			units.next(component)
		}
	}
	return names
}

// unitScan walks the leading components, which belong to service managers.
type unitScan struct {
	id     *events.Identity
	found  func(name string) // may be nil
	inUser bool              // below user@UID.service
	done   bool
}

func (s *unitScan) next(component string) {
	if s.done {
		return
	}
	name := unescapeUnit(component)
	isSlice := isUnit(name, ".slice")
	if s.found != nil && (isSlice || hasCgroup(name)) {
		s.found(name)
	}
	switch {
	case isSlice:
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
	container  *events.Container
	above      string // the component before
	inKubepods bool   // below the kubelet's cgroupfs root
}

func (s *containerScan) next(component string) {
	defer func() { s.above = component }()

	if isConmon(component) {
		// The monitor lives in the pod's slice, beside the containers.
		s.container.PodUID = ""
		return
	}
	if component == "kubepods" {
		s.inKubepods = true
		return
	}
	if uid, ok := s.pod(component); ok {
		s.container.PodUID = uid
		return
	}
	if runtime, name, ok := s.parse(component); ok {
		s.container.Runtime, s.container.ID = runtime, name
	}
}

func (s *containerScan) parse(component string) (runtime, name string, ok bool) {
	switch {
	case s.above == "lxc", s.above == "lxc.payload":
		return "lxc", component, true
	case strings.HasPrefix(component, lxcPayload):
		name = component[len(lxcPayload):]
		return "lxc", name, name != ""
	case component == nspawnPayload:
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

const (
	lxcPayload    = "lxc.payload."
	nspawnPayload = "payload"
)

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
			s.container.PodUID = uid
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
