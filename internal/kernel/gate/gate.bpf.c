// SPDX-License-Identifier: GPL-2.0
//go:build ignore

/*
 * The gate: files that run, or that the kernel reads for itself, are in the
 * set, or they are refused (mode enforce) or reported (mode log).
 *
 * While there is no set the programs decide nothing.
 */
#include "event.h"
#include "image.h"

char LICENSE[] SEC("license") = "GPL";

#define OVERLAYFS_MAGIC	0x794c7630
#define TMPFS_MAGIC	0x01021994
#define DEV_ZERO	0x6f72657a2f766564ULL	/* "dev/zero" */

/*
 * What is known of a file while its inode is in memory.
 *
 * The digest is kept of a file that was in a set, so that nobody hashes it again
 * while nothing can have changed it, whatever set comes. The rest catches
 * libraries that change while they are mapped: the kernel refuses to write a
 * program that runs, not a library.
 *
 * The one who judges writes first (judged, deciding) and then looks for writers;
 * a writer raises i_writecount and "writers" first and then looks whether
 * somebody judges. So one of them sees the other.
 */
struct state {
	__u64 digest[DIGEST_SIZE / 8];
	__u32 kind;	/* of the digest, as its algorithm */
	__u32 algorithm;
	__u64 hashed;	/* what "writers" was before it was hashed, and 1; 0: there is no digest */
	__u64 ctime;	/* with the digest: as it was before it was hashed */
	__u64 size;	/* with the digest: as it was before it was hashed */
	__u64 writers;	/* how often it was opened for writing, or its size set */
	__u64 approved;	/* generation in which it was mapped executable and known */
	__u64 passed;	/* generation in which the scope let it be mapped executable */
	__u64 judged;	/* when it was last mapped executable, nanoseconds since boot */
	__u64 deciding;	/* how many look for writers, to approve it */
	__u32 keeping;	/* somebody writes a digest */
	__u32 unseen;	/* may be written unseen, as long as the inode is in memory */
};

/* A mapping appears this long after its hook, at most. */
#define JUST_NOW	1000000000ULL

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct state);
} inodes SEC(".maps");

static __always_inline struct state *state_of(struct inode *inode)
{
	return bpf_inode_storage_get(&inodes, inode, 0, 0);
}

/*
 * Of several tasks that come to a new inode at the same time one makes its storage,
 * and the others are told that there is some (EEXIST), or that it has changed
 * (EAGAIN), which is NULL here, too. They find it when they look again.
 */
static __always_inline struct state *state_make(struct inode *inode)
{
	struct state *s = bpf_inode_storage_get(&inodes, inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!s)
		s = bpf_inode_storage_get(&inodes, inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!s)
		s = bpf_inode_storage_get(&inodes, inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	return s;
}

/* A store that all CPUs see before this one looks any further, and a load. */
#define store_first(p, v)	((void)__sync_lock_test_and_set((p), (v)))
#define load_first(p)		__sync_fetch_and_add((p), 0)

static __always_inline __u64 change_time(struct inode *inode)
{
	struct inode___6_6 *i66 = (void *)inode;
	struct inode___6_1 *i61 = (void *)inode;

	if (bpf_core_field_exists(inode->i_ctime_sec))
		return inode->i_ctime_sec * 1000000000 + inode->i_ctime_nsec;
	if (bpf_core_field_exists(i66->__i_ctime))
		return i66->__i_ctime.tv_sec * 1000000000 + i66->__i_ctime.tv_nsec;
	return i61->i_ctime.tv_sec * 1000000000 + i61->i_ctime.tv_nsec;
}

static __always_inline bool written(struct inode *inode)
{
	return inode->i_writecount.counter > 0;
}

/* File systems that no other machine or program writes behind the kernel's back. */
static __always_inline bool is_local(__u64 magic)
{
	switch (magic) {
	case 0xef53:		/* ext4 */
	case 0x58465342:	/* xfs */
	case 0x9123683e:	/* btrfs */
	case 0xf2f52010:	/* f2fs */
	case TMPFS_MAGIC:
	case 0x858458f6:	/* ramfs */
	case 0x73717368:	/* squashfs */
	case 0xe0f5e1e2:	/* erofs */
	case 0x4d44:		/* vfat */
	case 0x9660:		/* iso9660 */
		return true;
	}
	return false;
}

/*
 * A memfd is not opened, so that its writers are not counted, nor seen by a
 * hook. One that is sealed against writing has none.
 */
static __always_inline bool is_open_memory(struct inode *inode)
{
	unsigned int seals = 0;
	void *info;

	if (!(inode->i_sb->s_flags & SB_KERNMOUNT))
		return false;
	if (inode->i_sb->s_magic != TMPFS_MAGIC)
		return true;
	info = (void *)inode - bpf_core_field_offset(struct shmem_inode_info, vfs_inode);
	bpf_probe_read_kernel(&seals, sizeof(seals),
			      info + bpf_core_field_offset(struct shmem_inode_info, seals));
	return !(seals & F_SEAL_WRITE);
}

struct match {
	void *image;
	struct inode *inode;
	struct event *e;	/* holds the path, may be NULL */
	__u32 rules;
	__u32 verdict;
};

/*
 * Is the path the rule's, or below it? A global function, which the verifier
 * looks at once, not once for each way to it.
 */
__noinline int path_below(const struct rule *rule, const struct event *e)
{
	const __u64 *path;
	__u32 length;
	__u64 mask;
	int i;

	if (!rule || !e)
		return false;
	path = (const __u64 *)e->path;
	length = rule->length;
	if (!length || length > RULE_PATH_MAX || e->length < length)
		return false;
	/* By words: by bytes it is too many branches for the verifier of 6.12. */
	for (i = 0; i < RULE_PATH_MAX / 8; i++) {
		if (i * 8 >= length)
			break;
		mask = length - i * 8 >= 8 ? ~0ULL : (1ULL << (length - i * 8) * 8) - 1;
		if ((path[i] ^ rule->path[i]) & mask)
			return false;
	}
	return e->length == length || e->path[length] == '/';
}

static long match_rule(__u32 i, struct match *m)
{
	const struct rule *rule = image_block(m->image, i + 1);

	if (!rule || i >= m->rules)
		return 1;
	if ((rule->has & RULE_OWNER) && rule->owner != m->inode->i_uid.val)
		return 0;
	if ((rule->has & RULE_FS) && rule->fs != m->inode->i_sb->s_magic)
		return 0;
	/* A memfd, or what has been deleted, has no place in the tree. */
	if ((rule->has & RULE_PATH) &&
	    (!m->e || !m->inode->i_nlink || !path_below(rule, m->e)))
		return 0;
	m->verdict = rule->verdict;
	return 1;
}

/* What becomes of a file that is not known. */
static __always_inline enum verdict verdict_of_unknown(void *image, const struct header *h, enum hook hook,
						       struct inode *inode, struct event *e)
{
	struct match m = {
		.image = image, .inode = inode, .e = e,
		.rules = h->rules, .verdict = MODE_ENFORCE,
	};

	if (h->mode == MODE_LOG)
		return VERDICT_LOGGED;
	/* The scope is for what users run, not for what the kernel reads. */
	if (inode && (hook == HOOK_EXEC || hook == HOOK_MMAP || hook == HOOK_MPROTECT))
		bpf_loop(IMAGE_RULES, match_rule, &m, 0);
	return m.verdict == MODE_LOG ? VERDICT_SCOPED : VERDICT_DENIED;
}

/* The digest of a file under fs-verity is there without reading the file. */
static __always_inline bool verity_has(void *image, const struct header *h, struct file *file,
				       __u64 *digest, __u32 *algorithm)
{
	struct {
		__u16 algorithm;
		__u16 size;
	} *head;
	struct bpf_dynptr ptr;
	struct scratch *s;
	struct event *e;
	bool has = false;

	*algorithm = 0;
	if (!bpf_get_fsverity_digest || !(file->f_inode->i_flags & S_VERITY))
		return false;
	s = scratch_get();
	if (!s)
		return false;
	e = &s->event;
	/* struct fsverity_digest: u16 algorithm, u16 size, digest */
	if (bpf_dynptr_from_mem(e->path, 4 + sizeof(e->digest), 0, &ptr) ||
	    bpf_get_fsverity_digest(file, &ptr) < 0)
		goto out;
	head = (void *)e->path;
	if (head->algorithm == 1)
		*algorithm = HASH_ALGO_SHA256;
	else if (head->algorithm == 2)
		*algorithm = HASH_ALGO_SHA512;
	__builtin_memcpy(digest, e->path + 4, DIGEST_SIZE);
	has = *algorithm && image_has(image, h, KIND_VERITY, *algorithm, digest);
out:
	scratch_put(s);
	return has;
}

/*
 * Reports a file that is not known, and returns what becomes of it. The scope
 * may have been asked before: passed.
 */
static __always_inline enum verdict report(void *image, const struct header *h, enum hook hook,
					   struct file *file, enum reason reason,
					   const __u64 *digest, __u32 algorithm, bool passed)
{
	struct inode *inode = file ? file->f_inode : NULL;
	struct scratch *s = scratch_get();
	struct event *e = NULL;
	enum verdict verdict;
	long n;

	if (s) {
		e = &s->event;
		e->reason = reason;
		e->algorithm = algorithm;
		if (digest)
			__builtin_memcpy(e->digest, digest, sizeof(e->digest));
		else
			__builtin_memset(e->digest, 0, sizeof(e->digest));
		e->dev = inode ? inode->i_sb->s_dev : 0;
		e->length = 0;
		if (file) {
			/* Only sleepable programs may ask for the path. */
			if (hook == HOOK_MPROTECT)
				n = bpf_probe_read_kernel_str(e->path, 256, file->f_path.dentry->d_name.name);
			else
				n = bpf_d_path(&file->f_path, e->path, PATH_MAX);
			if (n > 1)
				e->length = n - 1;
		}
	}
	if (passed && h->mode == MODE_ENFORCE)
		verdict = VERDICT_SCOPED;
	else
		verdict = verdict_of_unknown(image, h, hook, inode, hook == HOOK_MPROTECT ? NULL : e);
	count(hook, verdict);
	event_send(e, hook, verdict);
	if (s)
		scratch_put(s);
	return verdict;
}

/* Is the file in the set, by the digest that is kept of it? */
static __always_inline bool kept_is_in(void *image, const struct header *h, struct state *s, struct inode *inode)
{
	__u64 hashed = load_first(&s->hashed);
	__u64 digest[DIGEST_SIZE / 8];

	if (hashed != s->writers + 1 || s->size != inode->i_size || s->ctime != change_time(inode))
		return false;
	__builtin_memcpy(digest, s->digest, sizeof(digest));
	/* If another has come meanwhile, this may be half of each. */
	return image_has(image, h, s->kind, s->algorithm, digest) && load_first(&s->hashed) == hashed;
}

/*
 * Keeps the digest of what was hashed, unless somebody has written since. Whoever
 * comes second keeps nothing, so that it is not half of each.
 */
static __always_inline void keep(struct state *s, enum kind kind, __u32 algorithm, const __u64 *digest,
				 __u64 size, __u64 ctime, __u64 writers)
{
	if (__sync_lock_test_and_set(&s->keeping, 1))
		return;
	if (load_first(&s->writers) == writers) {
		store_first(&s->hashed, 0);
		__builtin_memcpy(s->digest, digest, sizeof(s->digest));
		s->kind = kind;
		s->algorithm = algorithm;
		s->size = size;
		s->ctime = ctime;
		store_first(&s->hashed, writers + 1);
	}
	store_first(&s->keeping, 0);
}

/*
 * Hashes the file and looks it up. quiet says that it had no writers when it had
 * been opened for writing as often as writers says.
 */
static __always_inline enum reason look_up(void *image, const struct header *h, struct file *file, struct state *s,
					   bool quiet, __u64 writers, __u64 *digest, __u32 *algorithm)
{
	struct inode *inode = file->f_inode;
	__u64 ctime = change_time(inode);
	__u64 size = inode->i_size;
	enum kind kind = KIND_VERITY;
	long hashed;

	if (inode->i_sb->s_iflags & SB_I_IMA_UNVERIFIABLE_SIGNATURE)
		return REASON_UNVERIFIABLE;
	if (!verity_has(image, h, file, digest, algorithm)) {
		kind = KIND_CONTENT;
		__builtin_memset(digest, 0, 64);
		hashed = bpf_ima_file_hash(file, digest, 64);
		*algorithm = hashed < 0 ? 0 : hashed;
		if (hashed < 0)
			return REASON_UNHASHED;
		if (!image_has(image, h, kind, *algorithm, digest))
			return REASON_UNLISTED;
	}
	/* Who wrote while it was hashed may have closed it. */
	if (!quiet || s->unseen || is_open_memory(inode))
		return REASON_WRITERS;
	if (is_local(inode->i_sb->s_magic))
		keep(s, kind, *algorithm, digest, size, ctime, writers);
	return REASON_NONE;
}

/*
 * Has nobody begun to write since? Then what is mapped is approved, and whoever
 * begins from here on sees that.
 */
static __always_inline bool settle(const struct header *h, enum hook hook, struct inode *inode, struct state *s,
				   __u64 writers)
{
	bool settled;

	if (hook == HOOK_MMAP)
		__sync_fetch_and_add(&s->deciding, 1);
	settled = load_first(&s->writers) == writers && !written(inode);
	if (hook == HOOK_MMAP) {
		if (settled)
			store_first(&s->approved, h->generation);
		__sync_fetch_and_add(&s->deciding, -1);
	}
	return settled;
}

/* Is the file in the set? */
static __always_inline int judge(enum hook hook, struct file *file)
{
	struct inode *inode = file->f_inode;
	enum reason reason = REASON_MEMORY;
	__u64 digest[8] = {};
	enum verdict verdict;
	__u32 algorithm = 0;
	struct header *h;
	struct state *s;
	__u64 writers;
	void *image;
	bool quiet;

	image = image_current();
	if (!image)
		return 0;
	h = image_header(image);
	if (!h)
		return -EPERM;
	s = state_make(inode);
	if (!s)
		goto unknown;
	if (hook == HOOK_MMAP)
		store_first(&s->judged, bpf_ktime_get_boot_ns());
	writers = load_first(&s->writers);
	quiet = !written(inode);
	if (!quiet || !kept_is_in(image, h, s, inode)) {
		reason = look_up(image, h, file, s, quiet, writers, digest, &algorithm);
		if (reason != REASON_NONE)
			goto unknown;
		if (hook == HOOK_MMAP)
			store_first(&s->judged, bpf_ktime_get_boot_ns());
	}
	if (settle(h, hook, inode, s, writers)) {
		count(hook, VERDICT_KNOWN);
		return 0;
	}
	reason = REASON_WRITERS;
unknown:
	verdict = report(image, h, hook, file, reason, digest, algorithm, false);
	if (verdict == VERDICT_DENIED) {
		barrier();
		return -EPERM;
	}
	if (verdict == VERDICT_SCOPED && hook == HOOK_MMAP && s)
		s->passed = h->generation;
	return 0;
}

/* A script comes here twice: itself, then its interpreter. */
SEC("lsm.s/bprm_check_security")
int BPF_PROG(diglim_exec, struct linux_binprm *bprm)
{
	return judge(HOOK_EXEC, bprm->file);
}

/*
 * prot, not reqprot: with the personality READ_IMPLIES_EXEC the kernel adds
 * PROT_EXEC.
 */
SEC("lsm.s/mmap_file")
int BPF_PROG(diglim_mmap, struct file *file, unsigned long reqprot,
	     unsigned long prot, unsigned long flags)
{
	struct state *s;
	__u64 type = flags & MAP_TYPE;

	if (!file)
		return 0;
	/*
	 * On overlayfs the mapping belongs to the file below: its writer is not
	 * counted here, and what it writes changes no time here.
	 */
	if ((type == MAP_SHARED || type == MAP_SHARED_VALIDATE) && (file->f_mode & FMODE_WRITE) &&
	    file->f_inode->i_sb->s_magic == OVERLAYFS_MAGIC) {
		s = state_make(file->f_inode);
		if (!s)
			return -ENOMEM;
		s->unseen = 1;
	}
	if (!(prot & PROT_EXEC))
		return 0;
	return judge(HOOK_MMAP, file);
}

SEC("lsm.s/kernel_read_file")
int BPF_PROG(diglim_read, struct file *file)
{
	if (!file)
		return 0;
	return judge(HOOK_READ, file);
}

/* Modules, firmware, kexec images from memory: there is no file to judge. */
SEC("lsm/kernel_load_data")
int BPF_PROG(diglim_load)
{
	void *image = image_current();
	struct header *h;

	if (!image)
		return 0;
	h = image_header(image);
	if (!h)
		return -EPERM;
	if (report(image, h, HOOK_LOAD, NULL, REASON_NO_FILE, NULL, 0, false) == VERDICT_DENIED) {
		barrier();
		return -EPERM;
	}
	return 0;
}

/*
 * Not sleepable: nothing can be hashed here. What was mapped executable before
 * has been judged; anonymous memory has no file to be judged.
 */
SEC("lsm/file_mprotect")
int BPF_PROG(diglim_mprotect, struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot)
{
	enum verdict verdict;
	struct inode *inode, *above;
	struct header *h;
	struct state *s;
	struct file *file;
	__u64 name = 0;
	void *image;

	file = vma->vm_file;
	if (!(prot & PROT_EXEC) || !file || (vma->vm_flags & VM_EXEC))
		return 0;
	image = image_current();
	if (!image)
		return 0;
	h = image_header(image);
	if (!h)
		return -EPERM;
	/* Shared anonymous memory; no file can have a name with a slash. */
	bpf_probe_read_kernel(&name, sizeof(name), file->f_path.dentry->d_name.name);
	if (name == DEV_ZERO)
		return 0;

	/* On overlayfs vm_file is the file below, up to 6.6 with the path above. */
	inode = file->f_inode;
	above = file->f_path.dentry->d_inode;
	s = state_of(inode);
	if (!s || (s->approved != h->generation && s->passed != h->generation))
		s = state_of(above);
	if (s && s->approved && !s->unseen && !written(inode) && !written(above) &&
	    (s->approved == h->generation || kept_is_in(image, h, s, inode))) {
		count(HOOK_MPROTECT, VERDICT_KNOWN);
		return 0;
	}
	verdict = report(image, h, HOOK_MPROTECT, file, REASON_UNJUDGED, NULL, 0,
			 s && s->passed == h->generation);
	if (verdict == VERDICT_DENIED) {
		barrier();
		return -EPERM;
	}
	return 0;
}

/*
 * The file is about to be written. i_writecount has been raised before. Where
 * it is mapped executable, or just about to be, that would change a running
 * program that has been judged already.
 */
static __always_inline int write_begins(struct inode *inode, struct file *file)
{
	struct state *s = state_of(inode);
	enum verdict verdict;
	struct header *h;
	void *image;

	if (!s)
		return 0;
	__sync_fetch_and_add(&s->writers, 1);
	store_first(&s->hashed, 0);
	s->passed = 0;
	/* In this order: who decides leaves it approved. */
	if (!load_first(&s->deciding) && !s->approved)
		return 0;
	/* On overlayfs the mapping belongs to the file below, and is not seen here. */
	if (!inode->i_mapping->i_mmap.rb_root.rb_node && inode->i_sb->s_magic != OVERLAYFS_MAGIC &&
	    bpf_ktime_get_boot_ns() - s->judged > JUST_NOW) {
		s->approved = 0;
		return 0;
	}
	image = image_current();
	if (!image)
		return 0;
	h = image_header(image);
	if (!h)
		return -EPERM;
	verdict = report(image, h, HOOK_WRITE, file, REASON_MAPPED, NULL, 0, false);
	if (verdict == VERDICT_DENIED) {
		barrier();
		return -ETXTBSY;
	}
	s->approved = 0;
	return 0;
}

/*
 * The size is set without a file that is open for writing: IMA does not see
 * that, and keeps the digest it has (with a policy that measures the file).
 */
static __always_inline int size_set(struct inode *inode, struct file *file)
{
	struct state *s = state_make(inode);
	int err;

	if (!s)
		return -ENOMEM;
	err = write_begins(inode, file);
	if (!err)
		s->unseen = 1;
	return err;
}

/* Also of the file below an overlay. */
static __always_inline int attributes_set(struct dentry *dentry, struct iattr *attr)
{
	if (!(attr->ia_valid & ATTR_SIZE))
		return 0;
	if (attr->ia_valid & ATTR_FILE)
		return write_begins(dentry->d_inode, NULL);
	return size_set(dentry->d_inode, NULL);
}

SEC("lsm.s/file_open")
int BPF_PROG(diglim_open, struct file *file)
{
	if (file->f_mode & FMODE_WRITE)
		return write_begins(file->f_inode, file);
	if (file->f_flags & O_TRUNC)
		return size_set(file->f_inode, file);
	return 0;
}

/* The arguments have changed in 6.10; only the one that fits is loaded. */
SEC("lsm.s/inode_setattr")
int BPF_PROG(diglim_setattr, struct dentry *dentry, struct iattr *attr)
{
	return attributes_set(dentry, attr);
}

SEC("lsm.s/inode_setattr")
int BPF_PROG(diglim_setattr2, void *idmap, struct dentry *dentry, struct iattr *attr)
{
	return attributes_set(dentry, attr);
}
