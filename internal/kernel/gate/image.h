/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The image that decides: digests, mode and scope, in blocks of 256 bytes that
 * are the values of one frozen array. docs/formats/digest-set.md describes it;
 * package set makes it.
 */
#ifndef DIGLIM_IMAGE_H
#define DIGLIM_IMAGE_H

#include "kernel.h"

#define IMAGE_MAGIC	0x01534d494c474944ULL	/* "DIGLIMS\x01" */
#define IMAGE_RULES	32
#define IMAGE_TABLES	8
#define IMAGE_BLOCK	256
#define DIGEST_SIZE	32	/* of what is in a bucket */

enum mode {
	MODE_LOG = 1,
	MODE_ENFORCE = 2,
};

enum kind {
	KIND_CONTENT = 1,
	KIND_VERITY = 2,
	KIND_PARSER = 3,
};

struct table {
	__u8 kind;
	__u8 algorithm;
	__u16 zero;
	__u32 first;
	__u32 buckets;
	__u32 digests;
};

struct header {
	__u64 magic;
	__u64 generation;
	__u64 loaded;
	__u32 mode;
	__u32 blocks;
	__u32 lists;
	__u32 digests;
	__u16 rules;
	__u16 tables;
	__u32 flags;
	__u8 anchor[32];
	struct table table[IMAGE_TABLES];
	__u8 zero[48];
};

#define RULE_OWNER	1
#define RULE_FS		2
#define RULE_PATH	4
#define RULE_PATH_MAX	232

struct rule {
	__u32 verdict;		/* enum mode */
	__u32 has;
	__u32 owner;
	__u32 length;
	__u64 fs;
	__u64 path[RULE_PATH_MAX / 8];
};

struct bucket {
	__u64 slot[8][DIGEST_SIZE / 8];
};

_Static_assert(sizeof(struct header) == IMAGE_BLOCK, "header");
_Static_assert(sizeof(struct rule) == IMAGE_BLOCK, "rule");
_Static_assert(sizeof(struct bucket) == IMAGE_BLOCK, "bucket");

/*
 * The set that is in force: slot 0, empty before the first. A program takes it
 * once and sees nothing of a later one.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
		__uint(max_entries, 1);
		__uint(key_size, sizeof(__u32));
		__uint(value_size, IMAGE_BLOCK);
	});
} sets SEC(".maps");

static __always_inline void *image_current(void)
{
	__u32 slot = 0;

	return bpf_map_lookup_elem(&sets, &slot);
}

static __always_inline void *image_block(void *image, __u32 i)
{
	return bpf_map_lookup_elem(image, &i);
}

/*
 * The header, or NULL: then it is not an image that these programs can read,
 * and what they are asked for is refused.
 */
static __always_inline struct header *image_header(void *image)
{
	struct header *h = image_block(image, 0);

	return h && h->magic == IMAGE_MAGIC ? h : NULL;
}

static __always_inline bool bucket_has(void *image, __u32 i, const __u64 *digest)
{
	struct bucket *b = image_block(image, i);
	int s;

	if (!b)
		return false;
#pragma unroll
	for (s = 0; s < 8; s++)
		if (b->slot[s][0] == digest[0] && b->slot[s][1] == digest[1] &&
		    b->slot[s][2] == digest[2] && b->slot[s][3] == digest[3])
			return true;
	return false;
}

/*
 * Is the digest in the table of that kind and algorithm? Only its first 32
 * bytes count. A digest of zeros is an empty slot, never a member.
 */
static __always_inline bool image_has(void *image, const struct header *h,
				      __u32 kind, __u32 algorithm, const __u64 *digest)
{
	__u32 first = 0, buckets = 0, t;
	__u64 w0, w1;

#pragma unroll
	for (t = 0; t < IMAGE_TABLES; t++)
		if (h->table[t].kind == kind && h->table[t].algorithm == algorithm) {
			first = h->table[t].first;
			buckets = h->table[t].buckets;
		}
	if (!buckets || !(digest[0] | digest[1] | digest[2] | digest[3]))
		return false;
	w0 = (__u32)digest[0];
	w1 = digest[0] >> 32;
	return bucket_has(image, first + (__u32)(w0 * buckets >> 32), digest) ||
	       bucket_has(image, first + (__u32)(w1 * buckets >> 32), digest);
}

#endif
