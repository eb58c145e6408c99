// SPDX-License-Identifier: Apache-2.0

package inventory

// Taken is Take with another way to ask for queues.
var Taken = take
