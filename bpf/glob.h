/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Glob matching: `*` any run of bytes, `?` one byte, the rest literal.
 */
#ifndef __GLOB_H__
#define __GLOB_H__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "event.h"
#include "settings.h"
#include "scratch.h"

/*
 * The verifier walks through each round of a loop, but once through a function that has
 * one: rounds of rounds take it a fraction of the time.
 */
#define GLOB_ROUNDS 32
#define GLOB_STEPS 64 /* a round */

static __always_inline void glob_next(struct glob *g)
{
	g->pattern++;
	g->pi = 0;
	g->ti = 0;
	g->star_pi = 0;
	g->star_ti = 0;
}

/*
 * One step. A function of its own is verified once instead of for each round of the
 * loop below, and its state in memory is not followed. Returns 0 at the end.
 */
__noinline int glob_step(__u32 slot, __u32 end)
{
	struct scratch *s = scratch_get(slot);
	struct pattern *p;
	struct glob *g;
	__u32 pi, ti;
	char want;

	if (!s || s->glob.pattern >= end)
		return 0;
	g = &s->glob;
	p = bpf_map_lookup_elem(&patterns, &g->pattern);
	if (!p)
		return 0;
	pi = g->pi;
	ti = g->ti;
	want = p->text[pi & (PATTERN_MAX - 1)];
	if (pi >= p->len && ti >= g->text_len) {
		g->groups |= 1U << (p->group & 31);
		glob_next(g);
	} else if (pi < p->len && want == '*') {
		g->star_pi = pi + 1;
		g->star_ti = ti;
		g->pi = pi + 1;
	} else if (pi < p->len && ti < g->text_len &&
		   (want == '?' || want == g->text[ti & 255])) {
		g->pi = pi + 1;
		g->ti = ti + 1;
	} else if (g->star_pi && g->star_ti < g->text_len) {
		g->star_ti++;
		g->ti = g->star_ti;
		g->pi = g->star_pi;
	} else {
		glob_next(g);
	}
	return 1;
}

/* A round of them. Returns 0 at the end. */
__noinline int glob_steps(__u32 slot, __u32 end)
{
	__u32 i;

	for (i = 0; i < GLOB_STEPS; i++)
		if (!glob_step(slot, end))
			return 0;
	return 1;
}

/*
 * Matches the text in the slot's glob against patterns[first .. first+n) and
 * returns the groups that matched. When it runs out of steps it claims all of
 * them and says that it is unsure: user space matches again, so that this can only
 * cost, not lose.
 */
__noinline int glob_match(__u32 slot, __u32 first, __u32 n)
{
	struct scratch *s = scratch_get(slot);
	__u32 i;

	if (!s)
		return 0;
	s->glob.pattern = first - 1;
	s->glob.groups = 0;
	glob_next(&s->glob);
	for (i = 0; i < GLOB_ROUNDS; i++)
		if (!glob_steps(slot, first + n))
			return s->glob.groups;
	s->glob.unsure = EVENT_UNSURE_NAMES;
	return -1;
}

#endif
