// SPDX-License-Identifier: Apache-2.0

package tracer

import "github.com/hashicorp/golang-lru/v2/simplelru"

// lru remembers the values that were asked for last.
type lru[K comparable, V any] = simplelru.LRU[K, V]

// lruSize is how many values are remembered: more than twice what a large host runs at a time.
const lruSize = 16384

func newLRU[K comparable, V any]() *lru[K, V] {
	l, err := simplelru.NewLRU[K, V](lruSize, nil)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return l
}
