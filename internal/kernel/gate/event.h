/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the programs tell: counters that lose nothing, and events that are
 * limited in rate. Neither ever changes a verdict.
 */
#ifndef DIGLIM_EVENT_H
#define DIGLIM_EVENT_H

#include "kernel.h"

enum hook {
	HOOK_EXEC,	/* bprm_check_security */
	HOOK_MMAP,	/* mmap_file, with PROT_EXEC */
	HOOK_MPROTECT,	/* file_mprotect, with PROT_EXEC */
	HOOK_READ,	/* kernel_read_file */
	HOOK_LOAD,	/* kernel_load_data */
	HOOK_WRITE,	/* file_open for writing, inode_setattr with a size */
	HOOKS,
};

enum verdict {
	VERDICT_KNOWN,	/* in the set */
	VERDICT_LOGGED,	/* let through by mode log */
	VERDICT_SCOPED,	/* let through by a rule of the scope */
	VERDICT_DENIED,
	VERDICTS,
};

enum reason {
	REASON_NONE,
	REASON_UNLISTED,	/* the digest is not in the set */
	REASON_UNHASHED,	/* the kernel cannot hash the file */
	REASON_WRITERS,		/* the file is being written, or may be unseen */
	REASON_UNVERIFIABLE,	/* the file system may show another content next time */
	REASON_NO_FILE,		/* data from memory */
	REASON_UNJUDGED,	/* made executable without having been judged */
	REASON_MAPPED,		/* opened for writing while mapped executable */
	REASON_MEMORY,		/* no memory left to judge it */
};

struct event {
	__u64 ns;		/* since boot */
	__u32 pid;
	__u32 uid;
	__u8 hook;
	__u8 verdict;
	__u8 reason;
	__u8 algorithm;		/* enum hash_algo, where there is a digest */
	__u32 dev;
	__u8 digest[64];
	char comm[16];
	__u16 length;		/* of path */
	__u8 zero[6];
	char path[PATH_MAX];	/* only length bytes are sent */
};

#define EVENT_HEAD	112
#define EVENTS_PER_SECOND	1000

_Static_assert(__builtin_offsetof(struct event, path) == EVENT_HEAD, "event");

struct counters {
	__u64 verdict[HOOKS][VERDICTS];
	__u64 sent;
	__u64 lost;		/* the ring was full, or all scratches taken */
	__u64 suppressed;	/* more than EVENTS_PER_SECOND */
};

struct rate {
	__u64 second;
	__u64 events;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 128 << 10);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct rate);
} rate SEC(".maps");

/* Where an event is put together. It has what the last one left in it. */
struct scratch {
	struct event event;
	__u64 taken;
};

/*
 * There from the start, so that rules with a path hold where memory is short.
 * Several for each CPU: programs of several tasks can take turns on one.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

static __always_inline struct scratch *scratch_try(__u32 i)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &i);

	return s && !__sync_lock_test_and_set(&s->taken, 1) ? s : NULL;
}

static __always_inline struct scratch *scratch_get(void)
{
	struct scratch *s = scratch_try(0);

	if (!s)
		s = scratch_try(1);
	if (!s)
		s = scratch_try(2);
	if (!s)
		s = scratch_try(3);
	return s;
}

static __always_inline void scratch_put(struct scratch *s)
{
	(void)__sync_lock_test_and_set(&s->taken, 0);
}

static __always_inline void count(enum hook hook, enum verdict verdict)
{
	__u32 zero = 0;
	struct counters *c = bpf_map_lookup_elem(&counters, &zero);

	/* Atomic: a sleepable program can be preempted by another. */
	if (c)
		__sync_fetch_and_add(&c->verdict[hook][verdict], 1);
}

/* Is the second's share of events used up? A race costs or gives a few. */
static __always_inline bool rate_exceeded(__u64 ns)
{
	__u32 zero = 0;
	struct rate *r = bpf_map_lookup_elem(&rate, &zero);
	__u64 second = ns / 1000000000;

	if (!r)
		return true;
	if (r->second != second) {
		r->second = second;
		r->events = 0;
	}
	__sync_fetch_and_add(&r->events, 1);
	return r->events > EVENTS_PER_SECOND;
}

/* Sends an event whose digest, path and reason have been filled in; NULL is lost. */
static __always_inline void event_send(struct event *e, enum hook hook, enum verdict verdict)
{
	__u32 zero = 0, length;
	struct counters *c = bpf_map_lookup_elem(&counters, &zero);

	if (!c)
		return;
	if (!e) {
		__sync_fetch_and_add(&c->lost, 1);
		return;
	}
	e->ns = bpf_ktime_get_boot_ns();
	if (rate_exceeded(e->ns)) {
		__sync_fetch_and_add(&c->suppressed, 1);
		return;
	}
	e->pid = bpf_get_current_pid_tgid() >> 32;
	e->uid = bpf_get_current_uid_gid();
	e->hook = hook;
	e->verdict = verdict;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	length = e->length;
	if (length > PATH_MAX)
		length = PATH_MAX;
	if (bpf_ringbuf_output(&events, e, EVENT_HEAD + length, 0))
		__sync_fetch_and_add(&c->lost, 1);
	else
		__sync_fetch_and_add(&c->sent, 1);
}

#endif
