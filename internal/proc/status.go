// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Status is the part of /proc/PID/status that is read (proc_pid_status(5)).
type Status struct {
	// PPID is the parent, 0 when it is not visible here.
	PPID int
	// NSPID is the number of the process in its own pid namespace.
	NSPID int
	// UID is the real user: the one who chose the arguments, also of a set-user-ID program.
	UID uint32
	// FSUID, FSGID and Groups are the user and the groups as whom it uses files, and Effective are its
	// effective capabilities, bit N for capability N.
	FSUID, FSGID uint32
	Groups       []uint32
	Effective    uint64
	// Blocked and Caught are the signals that its main thread blocks and that the process catches,
	// bit N-1 for signal N.
	Blocked, Caught uint64
	// Waits is how often the thread has begun to wait: it has given its processor up by itself.
	Waits uint64
}

var errNoStatus = errors.New("not like /proc/PID/status")

// ParseStatus reads the content of the file.
func ParseStatus(content []byte) (Status, error) {
	var s Status
	hasUID := false
	for line := range bytes.Lines(content) {
		name, value, _ := strings.Cut(string(line), ":")
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		var err error
		switch name {
		case "PPid":
			s.PPID, err = strconv.Atoi(fields[0])
		case "NSpid":
			s.NSPID, err = strconv.Atoi(fields[len(fields)-1])
		case "Uid":
			var uid uint64
			uid, err = strconv.ParseUint(fields[0], 10, 32)
			s.UID, hasUID = uint32(uid), true
			if err == nil {
				s.FSUID, err = lastID(fields)
			}
		case "Gid":
			s.FSGID, err = lastID(fields)
		case "Groups":
			for _, field := range fields {
				var gid uint64
				if gid, err = strconv.ParseUint(field, 10, 32); err != nil {
					break
				}
				s.Groups = append(s.Groups, uint32(gid))
			}
		case "CapEff":
			s.Effective, err = strconv.ParseUint(fields[0], 16, 64)
		case "SigBlk":
			s.Blocked, err = strconv.ParseUint(fields[0], 16, 64)
		case "SigCgt":
			s.Caught, err = strconv.ParseUint(fields[0], 16, 64)
		case "voluntary_ctxt_switches":
			s.Waits, err = strconv.ParseUint(fields[0], 10, 64)
		}
		if err != nil {
			return Status{}, err
		}
	}
	if !hasUID {
		return Status{}, errNoStatus
	}
	return s, nil
}

// Cgroup is a line of /proc/PID/cgroup (cgroups(7)).
type Cgroup struct {
	// Unified is set for the hierarchy of version 2.
	Unified bool
	// Controllers are those of a hierarchy of version 1, comma-separated, or "name=NAME".
	Controllers string
	// Path is below the root of the hierarchy, as this process's cgroup namespace shows it.
	Path string
}

// ParseCgroups reads the content of /proc/PID/cgroup.
func ParseCgroups(content []byte) (all []Cgroup) {
	for line := range bytes.Lines(content) {
		fields := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(fields) == 3 {
			all = append(all, Cgroup{Unified: fields[0] == "0", Controllers: fields[1], Path: fields[2]})
		}
	}
	return all
}

// lastID is the last of the real, effective, saved and file system ids.
func lastID(fields []string) (uint32, error) {
	id, err := strconv.ParseUint(fields[len(fields)-1], 10, 32)
	return uint32(id), err
}

// Maps reports whether a user and a group exist in the user namespace of the process (user_namespaces(7)).
func (p Process) Maps(uid, gid uint32) (bool, error) {
	for file, id := range map[string]uint32{"uid_map": uid, "gid_map": gid} {
		content, err := p.Read(file)
		if err != nil {
			return false, err
		}
		if !isMapped(content, id) {
			return false, nil
		}
	}
	return true, nil
}

// isMapped reports whether an id is one of those outside that a map names.
func isMapped(content []byte, id uint32) bool {
	for line := range bytes.Lines(content) {
		var inside, outside, length uint64
		if n, _ := fmt.Sscan(string(line), &inside, &outside, &length); n == 3 && uint64(id) >= outside && uint64(id)-outside < length {
			return true
		}
	}
	return false
}
