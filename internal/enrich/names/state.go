// SPDX-License-Identifier: Apache-2.0

package names

import (
	"encoding/json"
	"strings"

	"github.com/sdtrace/sdtrace/internal/identity"
)

// state is a kind of file in which a runtime says what its containers are called.
type state struct {
	runtime string
	// glob is where the files are, with anID and aUser in it.
	glob string
	// read returns all containers that a file names.
	read func(content []byte) ([]named, error)
}

type named struct {
	id    string
	names []string
}

// What stands in a glob for an id and for the number of a user.
const (
	anID  = "{id}"
	aUser = "{user}"
)

// inHome is a glob in every user's home directory.
const inHome = "home/*/"

// states are in the order in which they count: what is written to disk outlives a
// restart of the machine.
var states = [...]state{
	{"docker", "var/lib/docker/containers/" + anID + "/config.v2.json", readDocker},
	{"docker", "var/lib/docker/*.*/containers/" + anID + "/config.v2.json", readDocker}, // dockerd --userns-remap
	{"docker", inHome + ".local/share/docker/containers/" + anID + "/config.v2.json", readDocker},
	{"podman", "var/lib/containers/storage/*-containers/containers.json", readStorage},
	{"podman", "run/containers/storage/*-containers/volatile-containers.json", readStorage},
	{"podman", inHome + ".local/share/containers/storage/*-containers/containers.json", readStorage},
	{"podman", "run/user/" + aUser + "/containers/*-containers/volatile-containers.json", readStorage},
}

// isOfUser reports whether only the containers of users are there.
func (s state) isOfUser() bool {
	return strings.HasPrefix(s.glob, inHome) || strings.Contains(s.glob, aUser)
}

// readDocker reads dockerd's container/State, where a name begins with "/".
func readDocker(content []byte) ([]named, error) {
	var container struct{ ID, Name string }
	if err := json.Unmarshal(content, &container); err != nil {
		return nil, err
	}
	name, ok := strings.CutPrefix(container.Name, "/")
	if !ok || !identity.IsContainerID(container.ID) {
		return nil, nil
	}
	return []named{{container.ID, []string{name}}}, nil
}

// readStorage reads the container list of containers/storage, which podman uses.
func readStorage(content []byte) ([]named, error) {
	var list []struct {
		ID    string   `json:"id"`
		Names []string `json:"names"`
	}
	if err := json.Unmarshal(content, &list); err != nil {
		return nil, err
	}
	var all []named
	for _, container := range list {
		if identity.IsContainerID(container.ID) {
			all = append(all, named{container.ID, container.Names})
		}
	}
	return all, nil
}
