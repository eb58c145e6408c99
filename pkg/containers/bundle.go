// SPDX-License-Identifier: Apache-2.0

package containers

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

// readBundle returns the name in a config.json, or "". CRI-O's own, which is
// k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT, is only taken when the kubelet gave none.
func readBundle(content []byte) (string, error) {
	var config struct {
		Annotations struct {
			Containerd string `json:"io.kubernetes.cri.container-name"`
			Kubelet    string `json:"io.kubernetes.container.name"`
			CRIO       string `json:"io.kubernetes.cri-o.ContainerName"`
			Nerdctl    string `json:"nerdctl/name"`
		} `json:"annotations"`
	}
	if err := json.Unmarshal(content, &config); err != nil {
		return "", err
	}
	a := config.Annotations
	return cmp.Or(a.Containerd, a.Kubelet, a.CRIO, a.Nerdctl), nil
}
