// SPDX-License-Identifier: Apache-2.0

// Package layout has nothing but tests: of who may import whom, and of what every package has.
package layout
