// SPDX-License-Identifier: GPL-2.0
//go:build ignore

/*
 * The lock: once armed, nobody takes the gate down until the next boot, and
 * only a parser reaches its maps, a program that the set itself lists.
 *
 * What keeps the gate are pins in a bpffs that is mounted a second time, in the
 * initramfs, on a directory that nobody sees after switch_root. So little needs
 * to be guarded: those pins, the maps by their ids, the BPF programs that could
 * override ours, and ftrace, which ours hang on.
 */
#include "image.h"

char LICENSE[] SEC("license") = "GPL";

/* include/uapi/linux/bpf.h: the commands that load programs, attach them and change what is attached. */
enum {
	BPF_PROG_LOAD = 5,
	BPF_RAW_TRACEPOINT_OPEN = 17,
	BPF_LINK_UPDATE = 29,
	BPF_LINK_GET_FD_BY_ID = 30,
	BPF_ENABLE_STATS = 32,
	BPF_ITER_CREATE = 33,
	BPF_LINK_DETACH = 34,
};

#define CLONE_THREAD		0x10000
#define PTRACE_MODE_ATTACH	2
#define LSM_UNSAFE_SHARE	1
#define LSM_UNSAFE_PTRACE	2
#define PROC_SUPER_MAGIC	0x9fa0
#define TMPFS_MAGIC		0x01021994
#define F_SEAL_SHRINK		2
#define F_SEAL_GROW		4
#define SEALED			(F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
#define BPF_F_RDONLY_PROG	(1U << 7)

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct seccomp {
	int mode;
};

struct task_struct___lock {
	unsigned int ptrace;
	struct seccomp seccomp;
};

struct linux_binprm___lock {
	struct file *file;
	int unsafe;
};

struct super_block___lock {
	__u32 s_dev;
	unsigned long s_magic;
};

struct inode___lock {
	struct super_block___lock *i_sb;
	unsigned long i_ino;
};

struct dentry___lock {
	struct inode___lock *d_inode;
};

struct vfsmount {
	struct super_block___lock *mnt_sb;
};

struct path___lock {
	struct vfsmount *mnt;
};

struct bpf_map {
	__u32 value_size;
	__u32 map_flags;
	__u32 id;
};

struct bpf_prog_aux {
	__u32 id;
};

struct bpf_prog {
	struct bpf_prog_aux *aux;
};

#pragma clang attribute pop

/* The start of what bpf(2) takes; user space's layout never changes. */
struct bpf_attr_prog_load {
	__u32 prog_type;
};

struct bpf_sysctl {
	__u32 write;
	__u32 file_pos;
};

/* A directory, by its file system and inode. */
struct place {
	__u64 dev;
	__u64 ino;
};

/* The directory with the pins, in bpffs. */
const volatile struct place pins;
/* The directory that bpffs is mounted on a second time. */
const volatile struct place hidden;
/* By number: the program types that may still be loaded. */
const volatile __u64 harmless_types;

/* 1: the lock is on. Frozen then. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, __u32);
} armed SEC(".maps");

enum object {
	OBJECT_MAP = 1,
	OBJECT_PROGRAM = 2,
};

struct object_id {
	__u32 object;
	__u32 id;
};

/* What belongs to the gate and the lock. Frozen before the lock is armed. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 128);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, struct object_id);
	__type(value, __u8);
} ours SEC(".maps");

/* The tasks that run a parser. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u8);
} parsers SEC(".maps");

static __always_inline bool is_armed(void)
{
	__u32 zero = 0, *on = bpf_map_lookup_elem(&armed, &zero);

	return on && *on;
}

static __always_inline bool is_parser(struct task_struct *task)
{
	return bpf_task_storage_get(&parsers, task, 0, 0);
}

static __always_inline bool is_ours(__u32 object, __u32 id)
{
	struct object_id key = { object, id };

	return bpf_map_lookup_elem(&ours, &key);
}

/*
 * The verifier wants constants from an LSM program; without the barrier the
 * compiler makes arithmetic of them.
 */
#define DENY_IF(condition)			\
	do {					\
		if (condition) {		\
			barrier();		\
			return -EPERM;		\
		}				\
	} while (0)

/* ---- who is a parser ---- */

/*
 * Can the file's pages become something else than what is hashed now? Only of a
 * memfd sealed against writing is it known that they cannot: there is no disk
 * below it that root writes to, no server that answers otherwise the second
 * time, and the kernel seals no memory that a device or io_uring still has in
 * its hands.
 */
static __always_inline bool is_sealed(struct file *file)
{
	struct inode *inode = file->f_inode;
	struct shmem_inode_info *info;

	if (inode->i_sb->s_magic != TMPFS_MAGIC)
		return false;
	info = (void *)inode - bpf_core_field_offset(struct shmem_inode_info, vfs_inode);
	return (BPF_CORE_READ(info, seals) & SEALED) == SEALED;
}

/* Does the set list the program as a parser? */
static __always_inline bool is_listed(struct file *file)
{
	__u64 digest[8] = {};
	struct header *h;
	void *image;
	long algorithm;

	algorithm = bpf_ima_file_hash(file, digest, sizeof(digest));
	if (algorithm < 0)
		return false;
	image = image_current();
	if (!image)
		return false;
	h = image_block(image, 0);
	return h && h->magic == IMAGE_MAGIC &&
	       image_has(image, h, KIND_PARSER, algorithm, digest);
}

/*
 * The mark belongs to what runs, so each exec clears it. Whoever has prepared
 * the task to be another's hands, gets no mark: a tracer, a seccomp filter
 * (whose supervisor answers system calls and puts in files), and one that
 * shares its root and working directory.
 */
SEC("lsm.s/bprm_committed_creds")
int BPF_PROG(lock_exec, struct linux_binprm *bprm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct___lock *t = (void *)task;
	struct linux_binprm___lock *b = (void *)bprm;

	bpf_task_storage_delete(&parsers, task);
	if (BPF_CORE_READ(t, ptrace) || BPF_CORE_READ(t, seccomp.mode) ||
	    (BPF_CORE_READ(b, unsafe) & (LSM_UNSAFE_PTRACE | LSM_UNSAFE_SHARE)))
		return 0;
	if (is_sealed(bprm->file) && is_listed(bprm->file))
		bpf_task_storage_get(&parsers, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	return 0;
}

/* A thread is its program; a child is not until it has executed one. */
SEC("lsm/task_alloc")
int BPF_PROG(lock_thread, struct task_struct *task, unsigned long flags)
{
	if ((flags & CLONE_THREAD) && is_parser(bpf_get_current_task_btf()))
		bpf_task_storage_get(&parsers, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	return 0;
}

/* To attach is to write its memory or take its files; to look is harmless. */
SEC("lsm/ptrace_access_check")
int BPF_PROG(lock_ptrace, struct task_struct *child, unsigned int mode)
{
	DENY_IF((mode & PTRACE_MODE_ATTACH) && is_armed() && is_parser(child));
	return 0;
}

/* ---- bpf(2) ---- */

SEC("lsm/bpf")
int BPF_PROG(lock_bpf, int cmd, struct bpf_attr_prog_load *attr)
{
	__u32 type;

	if (!is_armed())
		return 0;
	DENY_IF(cmd == BPF_RAW_TRACEPOINT_OPEN || cmd == BPF_LINK_UPDATE || cmd == BPF_LINK_GET_FD_BY_ID ||
		cmd == BPF_LINK_DETACH || cmd == BPF_ITER_CREATE || cmd == BPF_ENABLE_STATS);
	if (cmd != BPF_PROG_LOAD)
		return 0;
	/* The kernel's copy: nobody changes it between here and its use. */
	DENY_IF(bpf_probe_read_kernel(&type, sizeof(type), &attr->prog_type));
	DENY_IF(type > 63 || !(harmless_types >> type & 1));
	return 0;
}

/*
 * Asked for each new file descriptor of a map. Even one to read is too much: a
 * program can be loaded with it that writes, frozen or not. A new set is known
 * by its shape, before its id could be.
 */
SEC("lsm/bpf_map")
int BPF_PROG(lock_map, struct bpf_map *map)
{
	bool set = map->value_size == IMAGE_BLOCK &&
		   (map->map_flags & (BPF_F_MMAPABLE | BPF_F_INNER_MAP)) == (BPF_F_MMAPABLE | BPF_F_INNER_MAP);

	if (!is_armed() || is_parser(bpf_get_current_task_btf()))
		return 0;
	DENY_IF(set || is_ours(OBJECT_MAP, map->id));
	return 0;
}

SEC("lsm/bpf_prog")
int BPF_PROG(lock_prog, struct bpf_prog *prog)
{
	if (!is_armed() || is_parser(bpf_get_current_task_btf()))
		return 0;
	DENY_IF(is_ours(OBJECT_PROGRAM, prog->aux->id));
	return 0;
}

/* ---- the pins ---- */

static __always_inline bool inode_is(struct inode___lock *inode, const volatile struct place *p)
{
	return inode && BPF_CORE_READ(inode, i_ino) == p->ino && BPF_CORE_READ(inode, i_sb, s_dev) == p->dev;
}

static __always_inline bool holds_pins(struct inode *dir)
{
	return inode_is((void *)dir, &pins);
}

/*
 * Is it a directory that has to stay? One that a file system is mounted on can
 * be removed from a mount namespace that does not have that mount, and then the
 * kernel unmounts it everywhere.
 */
static __always_inline bool must_stay(struct dentry *dentry)
{
	struct inode___lock *inode = BPF_CORE_READ((struct dentry___lock *)dentry, d_inode);

	return inode_is(inode, &pins) || inode_is(inode, &hidden);
}

SEC("lsm/inode_unlink")
int BPF_PROG(lock_unlink, struct inode *dir, struct dentry *dentry)
{
	DENY_IF(is_armed() && holds_pins(dir));
	return 0;
}

SEC("lsm/inode_rmdir")
int BPF_PROG(lock_rmdir, struct inode *dir, struct dentry *dentry)
{
	DENY_IF(is_armed() && (holds_pins(dir) || must_stay(dentry)));
	return 0;
}

SEC("lsm/inode_rename")
int BPF_PROG(lock_rename, struct inode *old_dir, struct dentry *old_dentry,
	     struct inode *new_dir, struct dentry *new_dentry)
{
	if (!is_armed())
		return 0;
	DENY_IF(holds_pins(old_dir) || holds_pins(new_dir));
	DENY_IF(must_stay(old_dentry) || must_stay(new_dentry));
	return 0;
}

/* Only the hidden mount matters, but it looks like the others of its bpffs. */
static __always_inline bool is_bpffs(struct vfsmount *mnt)
{
	return BPF_CORE_READ(mnt, mnt_sb, s_dev) == pins.dev;
}

SEC("lsm/sb_umount")
int BPF_PROG(lock_umount, struct vfsmount *mnt, int flags)
{
	DENY_IF(is_armed() && is_bpffs(mnt));
	return 0;
}

SEC("lsm/move_mount")
int BPF_PROG(lock_move, struct path *from, struct path *to)
{
	DENY_IF(is_armed() && is_bpffs(BPF_CORE_READ((struct path___lock *)from, mnt)));
	return 0;
}

/* ---- ftrace, which LSM programs hang on ---- */

/*
 * With kernel.ftrace_enabled = 0 no LSM program runs, of the gate or the lock.
 * A program on sysctls does not hang on ftrace, and is asked at each write: it
 * also stops a file that was open before.
 */
SEC("cgroup/sysctl")
int lock_sysctl(struct bpf_sysctl *ctx)
{
	static const char ftrace_enabled[24] = "kernel/ftrace_enabled";
	const __u64 *want = (const __u64 *)ftrace_enabled;
	__u64 name[3] = {};

	if (!ctx->write || !is_armed())
		return 1;
	/* By words: by bytes it is too many branches for the verifier of 6.12. */
	bpf_sysctl_get_name(ctx, (char *)name, sizeof(name), 0);
	if ((name[0] ^ want[0]) | (name[1] ^ want[1]) | (name[2] ^ want[2]))
		return 1;
	return 0;
}

/* The second fence: not to be opened for writing at all. */
SEC("lsm/file_open")
int BPF_PROG(lock_open, struct file *file)
{
	static const char ftrace_enabled[16] = "ftrace_enabled";
	const __u64 *want = (const __u64 *)ftrace_enabled;
	__u64 name[2] = {};

	if (!(file->f_mode & FMODE_WRITE) || file->f_inode->i_sb->s_magic != PROC_SUPER_MAGIC || !is_armed())
		return 0;
	bpf_probe_read_kernel_str(name, sizeof(name), file->f_path.dentry->d_name.name);
	DENY_IF(name[0] == want[0] && name[1] == want[1]);
	return 0;
}
