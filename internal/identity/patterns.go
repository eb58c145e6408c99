// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"strings"
)

// UnitPatterns returns the names that the cgroup of a systemd unit can have,
// as glob patterns for one component of a cgroup path: "*" matches any run of
// bytes, "?" one byte, all else (the backslash too) itself. As with
// systemctl(1), unit may hold these two, and a name without a unit suffix
// means a service. The error says what is wrong with the name.
func UnitPatterns(unit string) ([]string, error) {
	if unit == "" {
		return nil, fmt.Errorf("unit name is empty")
	}
	if strings.Contains(unit, "/") {
		return nil, fmt.Errorf("unit name %q holds a /: use systemd-escape(1) for the name of a path's unit, --cgroup for a cgroup path", unit)
	}
	name := unit
	suffix := unitSuffix(name)
	isGlob := strings.ContainsAny(name, "*?")
	if suffix == "" && !isGlob {
		suffix = ".service"
		name += suffix
	}
	for _, none := range withoutCgroup {
		if suffix == none {
			return nil, fmt.Errorf("unit %q has no processes: name its service", unit)
		}
	}
	if isGlob {
		for i := range len(name) {
			if c := name[i]; !isUnitByte(c) && c != '*' && c != '?' {
				return nil, fmt.Errorf("unit pattern %q holds %q, which no unit name does", unit, c)
			}
		}
		if len(name) > unitNameMax {
			return nil, fmt.Errorf("unit pattern is longer than %d bytes", unitNameMax)
		}
	} else if !isUnit(name, suffix) {
		if strings.HasSuffix(name, "@"+suffix) {
			return nil, fmt.Errorf("unit %q is a template: name an instance, or all as %q", unit, strings.TrimSuffix(name, suffix)+"*"+suffix)
		}
		return nil, fmt.Errorf("%q is not a valid unit name", unit)
	}

	// systemd escapes a name when it could be a file of the kernel's, a set that
	// differs by version, and always one that begins with "_".
	if name[0] == '_' {
		return []string{"_" + name}, nil
	}
	return []string{name, "_" + name}, nil
}

var withoutCgroup = [...]string{".target", ".timer", ".path", ".device", ".automount"}

// unitSuffix returns the suffix that makes name a unit's, or "".
func unitSuffix(name string) string {
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return ""
	}
	suffix := name[dot:]
	if suffix == ".slice" {
		return suffix
	}
	for _, known := range processUnits {
		if suffix == known {
			return suffix
		}
	}
	for _, known := range withoutCgroup {
		if suffix == known {
			return suffix
		}
	}
	return ""
}

// prefixMin is the number of digits of an id from which on it is taken for one.
const prefixMin = 4

// ContainerPatterns returns the names that the cgroup of a container can have,
// as glob patterns like those of [UnitPatterns]. It takes an id or its first
// digits, at least 4, or the name of a container of lxc, nspawn or runc. Names
// that docker and podman give are nowhere in a cgroup path: package
// containers finds the id. The error says what is wrong with the name.
func ContainerPatterns(idOrName string) ([]string, error) {
	if idOrName == "" {
		return nil, fmt.Errorf("container name is empty")
	}
	for i := range len(idOrName) {
		if c := idOrName[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`/\*?`, c) >= 0 {
			return nil, fmt.Errorf("invalid container name %q: contains %q", idOrName, c)
		}
	}
	if len(idOrName) > unitNameMax {
		return nil, fmt.Errorf("container name is longer than %d bytes", unitNameMax)
	}
	switch suffix := unitSuffix(idOrName); suffix {
	case "":
	case ".scope":
		return []string{idOrName}, nil
	default:
		return nil, fmt.Errorf("%q is a unit, not a container: use --unit", idOrName)
	}

	var patterns []string
	if len(idOrName) >= prefixMin && len(idOrName) <= containerIDLen && isHex(idOrName) {
		patterns = idPatterns(idOrName)
		if len(idOrName) == containerIDLen {
			return patterns, nil
		}
	}
	escaped := escapeHex(idOrName)
	patterns = append(patterns,
		idOrName, // runc's, and lxc's below "lxc"
		lxcPayload+idOrName,
		"machine-"+escaped+".scope",
		"systemd-nspawn@"+idOrName+".service",
	)
	if escaped != idOrName {
		patterns = append(patterns, "systemd-nspawn@"+escaped+".service")
	}
	return patterns, nil
}

func idPatterns(prefix string) []string {
	// A "*" after the digits of the bare forms would also match units such as
	// "cafe.service"; an id's length is known.
	whole := prefix + strings.Repeat("?", containerIDLen-len(prefix))
	id := prefix
	if len(prefix) < containerIDLen {
		id += "*"
	}
	patterns := []string{whole, "*.slice:*:" + whole}
	for _, known := range prefixes {
		if known.scope {
			patterns = append(patterns, known.prefix+"-"+id+".scope")
		}
		if known.bare {
			patterns = append(patterns, known.prefix+"-"+whole)
		}
	}
	return patterns
}

// escapeHex does what systemd's unit_name_escape does to a machine name.
func escapeHex(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c == '-' || c == '@' || !isUnitByte(c) || i == 0 && c == '.' {
			fmt.Fprintf(&b, `\x%02x`, c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
