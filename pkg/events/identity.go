// SPDX-License-Identifier: Apache-2.0

package events

// Identity is a control group and what its path says about the processes in it. It is one
// value: what is known of a process is taken over whole, or not at all.
type Identity struct {
	// Cgroup is the path of the control group below the root of its hierarchy; empty when
	// it is unknown or gone.
	Cgroup string `json:"cgroup,omitempty"`
	// Machine names the service manager below whose root Unit, UserUnit and Slice are: the
	// machine of nspawn or lxc, the id of a container, else the name of the control group
	// that is its root. It is empty for the host's own service managers.
	Machine string `json:"machine,omitempty"`
	// Unit and Slice are the systemd unit and slice that Cgroup names, UserUnit
	// the unit of a user manager below it.
	Unit     string `json:"unit,omitempty"`
	UserUnit string `json:"user_unit,omitempty"`
	Slice    string `json:"slice,omitempty"`
	// Container is what Cgroup says about the container, nil outside of one. It is shared:
	// only who sets it may change it.
	Container *Container `json:"container,omitempty"`
}

// Container is what a cgroup path tells about the container a process is in, and what
// its runtime calls it.
type Container struct {
	// Runtime is "docker", "podman", "containerd", "cri-o", "lxc", "nspawn",
	// or empty when the path does not tell.
	Runtime string `json:"runtime,omitempty"`
	// ID is the container's id or, for lxc and nspawn, its name. Of nested containers it is
	// that of the innermost.
	ID string `json:"id,omitempty"`
	// Name is what the runtime calls a container whose ID is not its name, looked up
	// after the event in the runtime's own files; empty while it is not known. In
	// Kubernetes it is unique in the pod alone.
	Name string `json:"name,omitempty"`
	// PodUID is the UID of the Kubernetes pod, with dashes; static pods have one of 32
	// hexadecimal digits without.
	PodUID string `json:"pod_uid,omitempty"`
	// PodNamespace and PodName are what Kubernetes calls the pod, looked up as Name is.
	PodNamespace string `json:"pod_namespace,omitempty"`
	PodName      string `json:"pod_name,omitempty"`
}
