# SPDX-License-Identifier: Apache-2.0
#
# containerd as packaged, running.
systemctl is-active --quiet containerd || systemctl start containerd
