// SPDX-License-Identifier: Apache-2.0

package names

import (
	"cmp"
	"encoding/json"
)

// bundles are where runtimes put the config.json of OCI's runtime-spec, in which those
// of Kubernetes write what they call a container. It is not unique there: every pod of
// a kind has containers of the same names.
var bundles = [...]struct{ runtime, glob string }{
	{"containerd", "run/containerd/io.containerd.runtime.v2.task/*/" + anID + "/config.json"},
	{"cri-o", "run/containers/storage/*-containers/" + anID + "/userdata/config.json"},
	{"cri-o", "var/lib/containers/storage/*-containers/" + anID + "/userdata/config.json"},
}

// readBundle returns the names in a config.json. CRI-O's own name, which is
// k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT, is only taken when the kubelet gave none.
func readBundle(content []byte) (Name, error) {
	var config struct {
		Annotations struct {
			Containerd string `json:"io.kubernetes.cri.container-name"`
			Kubelet    string `json:"io.kubernetes.container.name"`
			CRIO       string `json:"io.kubernetes.cri-o.ContainerName"`
			Nerdctl    string `json:"nerdctl/name"`

			SandboxNamespace string `json:"io.kubernetes.cri.sandbox-namespace"`
			SandboxName      string `json:"io.kubernetes.cri.sandbox-name"`
			PodNamespace     string `json:"io.kubernetes.pod.namespace"`
			PodName          string `json:"io.kubernetes.pod.name"`
		} `json:"annotations"`
	}
	if err := json.Unmarshal(content, &config); err != nil {
		return Name{}, err
	}
	a := config.Annotations
	return Name{
		Container:    cmp.Or(a.Containerd, a.Kubelet, a.CRIO, a.Nerdctl),
		PodNamespace: cmp.Or(a.SandboxNamespace, a.PodNamespace),
		PodName:      cmp.Or(a.SandboxName, a.PodName),
	}, nil
}
