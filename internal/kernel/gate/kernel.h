/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the programs use of the kernel: types with the few fields they read,
 * found at load time by the running kernel's BTF (CO-RE), and constants.
 */
#ifndef DIGLIM_KERNEL_H
#define DIGLIM_KERNEL_H

#include <stdbool.h>
#include <stddef.h>

typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

/* include/uapi/linux/bpf.h */
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_INODE_STORAGE = 28,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};
#define BPF_F_NO_PREALLOC	(1U << 0)
#define BPF_F_MMAPABLE		(1U << 10)
#define BPF_F_INNER_MAP		(1U << 12)
#define BPF_LOCAL_STORAGE_GET_F_CREATE	(1ULL << 0)

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define EPERM		1
#define ENOMEM		12
#define ETXTBSY		26

#define PATH_MAX	4096
#define PROT_EXEC	4
#define VM_EXEC		4
#define MAP_TYPE	0x0f
#define MAP_SHARED	1
#define MAP_SHARED_VALIDATE	3
#define FMODE_WRITE	2
#define O_TRUNC		01000
#define F_SEAL_WRITE	8
#define ATTR_SIZE	(1 << 3)
#define ATTR_FILE	(1 << 13)
#define S_VERITY	(1 << 16)	/* include/linux/fs.h */
#define SB_KERNMOUNT	(1 << 22)
#define SB_I_IMA_UNVERIFIABLE_SIGNATURE	0x00000020

/* include/uapi/linux/hash_info.h */
#define HASH_ALGO_SHA256	4
#define HASH_ALGO_SHA512	6

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	__u32 val;
} kuid_t;

struct timespec64 {
	__s64 tv_sec;
	long tv_nsec;
};

struct rb_node;

struct rb_root {
	struct rb_node *rb_node;
};

struct rb_root_cached {
	struct rb_root rb_root;
};

struct address_space {
	struct rb_root_cached i_mmap;
};

struct super_block {
	__u32 s_dev;
	unsigned long s_flags;
	unsigned long s_iflags;
	unsigned long s_magic;
};

struct inode {
	kuid_t i_uid;
	unsigned int i_flags;
	struct super_block *i_sb;
	struct address_space *i_mapping;
	unsigned int i_nlink;
	__s64 i_size;
	__s64 i_ctime_sec;		/* since 6.11 */
	__u32 i_ctime_nsec;
	atomic_t i_writecount;
};

struct shmem_inode_info {
	unsigned int seals;
	struct inode vfs_inode;
};

struct inode___6_6 {
	struct timespec64 __i_ctime;	/* 6.6 to 6.10 */
};

struct inode___6_1 {
	struct timespec64 i_ctime;	/* before 6.6 */
};

struct qstr {
	const unsigned char *name;
};

struct dentry {
	struct qstr d_name;
	struct inode *d_inode;
};

struct path {
	struct dentry *dentry;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
	unsigned int f_flags;
	unsigned int f_mode;
};

struct linux_binprm {
	struct file *file;
};

struct iattr {
	unsigned int ia_valid;
};

struct vm_area_struct {
	unsigned long vm_flags;
	struct file *vm_file;
};

struct task_struct;

#pragma clang attribute pop

struct bpf_dynptr {
	__u64 opaque[2];
};

/* Since 6.8; fs/verity/measure.c. */
extern int bpf_get_fsverity_digest(struct file *file, struct bpf_dynptr *digest) __ksym __weak;

#endif
