// SPDX-License-Identifier: GPL-2.0 -- a stand-in, for tests, for a kernel patched with DIGLIM v3; protects nothing
/*
 * It offers the securityfs interface of the DIGLIM v3 patch set of September
 * 2021 on stock 6.1 and 6.12 kernels: the same files, answers and refusals as
 * that code gives on a machine without an IMA policy. Nothing asks the lists
 * loaded here: no hook measures or appraises a file by them.
 *
 *	/sys/kernel/security/integrity/diglim/
 *		digest_lists_loaded/		two files for each loaded list
 *		digests_count		0440	digests by type
 *		digest_list_add		0200	a list, or the path of one
 *		digest_list_del		0200	the same
 *		digest_list_label	0600	name of the next list without a path
 *		digest_query		0600	which lists hold a digest?
 *
 * Without a policy IMA performs no action on a list, so "actions" is always 0
 * and deleting never fails with -EPERM. A list is known by the SHA-256 digest,
 * IMA's default hash, of its bytes without an appended signature.
 *
 * Where the original crashes, this module refuses:
 *
 *	file name of a list is cut before its last dot	-ENAMETOOLONG
 *	  (label or base name of 183 characters or more)
 *	signature longer than the file before it	-EINVAL
 *	reading digest_list_label			-EINVAL
 *
 * An empty list, whose files crash the original when they are read, cannot be
 * loaded without an IMA policy.
 *
 * A file that is being opened while the module is unloaded is a race that
 * securityfs leaves to modules to lose: unload last.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <crypto/hash.h>
#include <crypto/hash_info.h>
#include <crypto/sha2.h>
#include <linux/ctype.h>
#include <linux/fs.h>
#include <linux/hashtable.h>
#include <linux/jhash.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/module_signature.h>
#include <linux/security.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "stand_in.h"

#define LIST_PREFIX	"sha256-"
#define MAX_COPY	(4 * 1024 * 1024) /* the largest kmalloc() */
#define LABEL_SIZE	256
#define QUERY_SIZE	258
#define NAME_SIZE	256
#define QUERY_CHECKED	20 /* digits that a query is checked for */

enum list_type {
	TYPE_PARSER,
	TYPE_FILE,
	TYPE_METADATA,
	TYPE_DIGEST_LIST, /* the digest of a list; never in one */
	TYPE_LAST,
};

enum list_op { OP_ADD, OP_DEL };

/* A loaded list. */
struct digest_list {
	struct hlist_node node;
	u8 digest[SHA256_DIGEST_SIZE];
	char name[NAME_SIZE]; /* of its binary file when it was added */
	u8 *data;
	size_t size;
	struct digest_ref *refs; /* one for each digest in data */
	size_t num_refs;
};

/* One occurrence of a digest in a list. */
struct digest_ref {
	struct list_head node; /* in item->refs, oldest first */
	struct digest_item *item;
	const struct digest_list *list;
	const struct list_hdr *hdr;
};

/* A digest that at least one list holds. */
struct digest_item {
	struct hlist_node node;
	struct list_head refs;
	u16 type;
	u16 algo;
	u8 digest[];
};

/*
 * The binary and the .ascii file of a list. A pair can outlive its list, and
 * a list can have more than one: see list_write_buf().
 */
struct file_pair {
	struct list_head node;
	struct dentry *ascii, *binary;
	char name[NAME_SIZE]; /* of the .ascii file */
};

static DEFINE_MUTEX(lock); /* of everything from here to busy */
static DEFINE_HASHTABLE(lists, 10);
static DEFINE_HASHTABLE(items, 12);
static LIST_HEAD(pairs);
static unsigned int counts[TYPE_LAST];
static char label[LABEL_SIZE];
static char query[QUERY_SIZE];

static unsigned long busy; /* bit 0: add, del or query is open */
static struct dentry *diglim_dir, *loaded_dir;
static struct dentry *control_files[5];

/* Digests and lists */

static struct digest_list *list_find(const u8 *digest)
{
	struct digest_list *list;

	hash_for_each_possible(lists, list, node,
			       jhash(digest, SHA256_DIGEST_SIZE, 0))
		if (!memcmp(list->digest, digest, SHA256_DIGEST_SIZE))
			return list;
	return NULL;
}

static struct digest_item *item_find(u16 type, u16 algo, const u8 *digest)
{
	int size = hash_digest_size[algo];
	struct digest_item *item;

	hash_for_each_possible(items, item, node, jhash(digest, size, 0))
		if (item->type == type && item->algo == algo &&
		    !memcmp(item->digest, digest, size))
			return item;
	return NULL;
}

static struct digest_item *item_get(u16 type, u16 algo, const u8 *digest)
{
	struct digest_item *item = item_find(type, algo, digest);
	int size = hash_digest_size[algo];

	if (item)
		return item;

	item = kmalloc(struct_size(item, digest, size), GFP_KERNEL);
	if (!item)
		return NULL;

	item->type = type;
	item->algo = algo;
	INIT_LIST_HEAD(&item->refs);
	memcpy(item->digest, digest, size);
	hash_add(items, &item->node, jhash(digest, size, 0));
	counts[type]++;
	return item;
}

static void ref_drop(struct digest_ref *ref)
{
	struct digest_item *item = ref->item;

	list_del(&ref->node);
	if (!list_empty(&item->refs))
		return;

	hash_del(&item->node);
	counts[item->type]--;
	kfree(item);
}

static void list_free(struct digest_list *list)
{
	while (list->num_refs) {
		ref_drop(&list->refs[--list->num_refs]);
		cond_resched();
	}
	kvfree(list->refs);
	kvfree(list->data);
	kfree(list);
}

/* Returns the number of digests in a well-formed list, or -EINVAL. */
static ssize_t list_check(const u8 *data, size_t size)
{
	size_t total = 0;

	while (size) {
		const struct list_hdr *hdr = (const struct list_hdr *)data;
		u16 algo;
		u64 len;

		if (size < sizeof(*hdr))
			return -EINVAL;

		algo = le16_to_cpu(hdr->algo);
		if (hdr->version != 1 || hdr->reserved || algo >= ALGO_LAST ||
		    le16_to_cpu(hdr->type) >= TYPE_DIGEST_LIST)
			return -EINVAL;

		len = (u64)le32_to_cpu(hdr->count) * hash_digest_size[algo];
		if (len != le32_to_cpu(hdr->datalen) ||
		    len > size - sizeof(*hdr))
			return -EINVAL;

		total += le32_to_cpu(hdr->count);
		data += sizeof(*hdr) + len;
		size -= sizeof(*hdr) + len;
	}

	return total;
}

/* Files the digests of a checked list. */
static int list_file_digests(struct digest_list *list)
{
	const u8 *pos = list->data;

	while (pos < list->data + list->size) {
		const struct list_hdr *hdr = (const struct list_hdr *)pos;
		u16 algo = le16_to_cpu(hdr->algo);
		u32 i;

		pos += sizeof(*hdr);
		for (i = 0; i < le32_to_cpu(hdr->count); i++) {
			struct digest_ref *ref = &list->refs[list->num_refs];

			ref->item = item_get(le16_to_cpu(hdr->type), algo, pos);
			if (!ref->item)
				return -EINVAL; /* sic, for want of memory */
			ref->list = list;
			ref->hdr = hdr;
			list_add_tail(&ref->node, &ref->item->refs);
			list->num_refs++;
			pos += hash_digest_size[algo];
			cond_resched();
		}
	}

	return 0;
}

static int list_load(const u8 *digest, const char *name, const u8 *data,
		     size_t size)
{
	struct digest_list *list;
	ssize_t num_refs;
	int err;

	if (list_find(digest))
		return -EEXIST;

	num_refs = list_check(data, size);
	if (num_refs < 0)
		return num_refs;
	if (size > MAX_COPY)
		return -ENOMEM;

	list = kzalloc(sizeof(*list), GFP_KERNEL);
	if (!list)
		return -ENOMEM;

	memcpy(list->digest, digest, sizeof(list->digest));
	strscpy(list->name, name, sizeof(list->name));
	list->size = size;
	list->data = kvmalloc(size, GFP_KERNEL);
	list->refs = kvcalloc(num_refs, sizeof(*list->refs), GFP_KERNEL);
	if (!list->data || !list->refs) {
		list_free(list);
		return -ENOMEM;
	}

	memcpy(list->data, data, size);
	err = list_file_digests(list);
	if (err) {
		list_free(list);
		return err;
	}

	hash_add(lists, &list->node, jhash(digest, SHA256_DIGEST_SIZE, 0));
	counts[TYPE_DIGEST_LIST]++;
	return 0;
}

static int list_unload(const u8 *digest)
{
	struct digest_list *list = list_find(digest);

	if (!list)
		return -ENOENT;

	hash_del(&list->node);
	counts[TYPE_DIGEST_LIST]--;
	list_free(list);
	return 0;
}

/* digest_lists_loaded/ */

/*
 * Walks the digests of one list. A block without digests is one step too, so
 * that its header is shown.
 */
struct list_iter {
	u8 digest[SHA256_DIGEST_SIZE];
	const struct digest_list *list;
	size_t offset; /* of the block in the list */
	u32 index; /* of the digest in the block */
};

static const struct list_hdr *iter_hdr(const struct list_iter *iter)
{
	return (const struct list_hdr *)(iter->list->data + iter->offset);
}

static const u8 *iter_digest(const struct list_iter *iter)
{
	const struct list_hdr *hdr = iter_hdr(iter);

	return (const u8 *)(hdr + 1) +
	       iter->index * hash_digest_size[le16_to_cpu(hdr->algo)];
}

static void iter_next_block(struct list_iter *iter)
{
	const struct list_hdr *hdr = iter_hdr(iter);

	iter->offset += sizeof(*hdr) + le32_to_cpu(hdr->datalen);
	iter->index = 0;
}

static void *list_start(struct seq_file *m, loff_t *pos)
{
	struct list_iter *iter = m->private;
	loff_t skip = *pos;

	mutex_lock(&lock);
	iter->offset = 0;
	iter->index = 0;
	iter->list = list_find(iter->digest);
	if (!iter->list)
		return NULL;

	while (iter->offset < iter->list->size) {
		u32 steps = max(le32_to_cpu(iter_hdr(iter)->count), 1U);

		if (skip < steps) {
			iter->index = skip;
			return iter;
		}
		skip -= steps;
		iter_next_block(iter);
	}

	return NULL;
}

static void *list_next(struct seq_file *m, void *v, loff_t *pos)
{
	struct list_iter *iter = v;

	++*pos;
	if (++iter->index >= le32_to_cpu(iter_hdr(iter)->count))
		iter_next_block(iter);
	return iter->offset < iter->list->size ? iter : NULL;
}

static void locked_stop(struct seq_file *m, void *v)
{
	mutex_unlock(&lock);
}

static void show_hdr(struct seq_file *m, const struct list_hdr *hdr)
{
	seq_printf(m, "version: %d, algo: %s, type: %d, modifiers: %d, count: %u, datalen: %u\n",
		   hdr->version, hash_algo_name[le16_to_cpu(hdr->algo)],
		   le16_to_cpu(hdr->type), le16_to_cpu(hdr->modifiers),
		   le32_to_cpu(hdr->count), le32_to_cpu(hdr->datalen));
}

static int list_show_ascii(struct seq_file *m, void *v)
{
	const struct list_iter *iter = v;
	const struct list_hdr *hdr = iter_hdr(iter);

	if (!iter->index) {
		seq_puts(m, "actions: 0, ");
		show_hdr(m, hdr);
	}
	if (hdr->count)
		seq_printf(m, "%*phN\n",
			   hash_digest_size[le16_to_cpu(hdr->algo)],
			   iter_digest(iter));
	return 0;
}

static int list_show_binary(struct seq_file *m, void *v)
{
	const struct list_iter *iter = v;
	const struct list_hdr *hdr = iter_hdr(iter);

	if (!iter->index)
		seq_write(m, hdr, sizeof(*hdr));
	if (hdr->count)
		seq_write(m, iter_digest(iter),
			  hash_digest_size[le16_to_cpu(hdr->algo)]);
	return 0;
}

static const struct seq_operations list_ascii_ops = {
	.start = list_start,
	.next = list_next,
	.stop = locked_stop,
	.show = list_show_ascii,
};

static const struct seq_operations list_binary_ops = {
	.start = list_start,
	.next = list_next,
	.stop = locked_stop,
	.show = list_show_binary,
};

/*
 * The list is looked up by the digest in the file's name: a file may be open
 * when its list goes, and an orphan shows the list of its first pair.
 */
static int list_open(struct file *file, const struct seq_operations *ops)
{
	const unsigned char *name = file->f_path.dentry->d_name.name;
	struct list_iter *iter;

	iter = __seq_open_private(file, ops, sizeof(*iter));
	if (!iter)
		return -ENOMEM;
	if (hex2bin(iter->digest, name + strlen(LIST_PREFIX),
		    sizeof(iter->digest))) {
		seq_release_private(file_inode(file), file);
		return -ENOENT;
	}
	return 0;
}

static int list_ascii_open(struct inode *inode, struct file *file)
{
	return list_open(file, &list_ascii_ops);
}

static int list_binary_open(struct inode *inode, struct file *file)
{
	return list_open(file, &list_binary_ops);
}

static const struct file_operations list_ascii_fops = {
	.owner = THIS_MODULE,
	.open = list_ascii_open,
	.read = seq_read,
	.llseek = seq_lseek,
	.release = seq_release_private,
};

static const struct file_operations list_binary_fops = {
	.owner = THIS_MODULE,
	.open = list_binary_open,
	.read = seq_read,
	.llseek = seq_lseek,
	.release = seq_release_private,
};

/*
 * Names the pair of files of a list. The name with .ascii is what is cut when
 * it is too long; what stands before its last dot is the binary file's name.
 */
static int pair_names(const u8 *digest, const char *name, char *ascii,
		      char *binary)
{
	char *dot;

	snprintf(ascii, NAME_SIZE, LIST_PREFIX "%*phN-%s.ascii",
		 SHA256_DIGEST_SIZE, digest, name);
	strscpy(binary, ascii, NAME_SIZE);
	dot = strrchr(binary, '.');
	if (!dot)
		return -ENAMETOOLONG;

	*dot = '\0';
	return 0;
}

static struct file_pair *pair_find(const char *ascii)
{
	struct file_pair *pair;

	list_for_each_entry(pair, &pairs, node)
		if (!strcmp(pair->name, ascii))
			return pair;
	return NULL;
}

static struct file_pair *pair_create(const char *ascii, const char *binary)
{
	struct file_pair *pair = kzalloc(sizeof(*pair), GFP_KERNEL);
	struct dentry *dentry;

	if (!pair)
		return ERR_PTR(-ENOMEM);

	dentry = securityfs_create_file(ascii, 0440, loaded_dir, NULL,
					&list_ascii_fops);
	if (IS_ERR(dentry))
		goto err_free;
	pair->ascii = dentry;

	dentry = securityfs_create_file(binary, 0440, loaded_dir, NULL,
					&list_binary_fops);
	if (IS_ERR(dentry))
		goto err_remove;
	pair->binary = dentry;

	strscpy(pair->name, ascii, sizeof(pair->name));
	list_add(&pair->node, &pairs);
	return pair;

err_remove:
	securityfs_remove(pair->ascii);
err_free:
	kfree(pair);
	return ERR_CAST(dentry);
}

static void pair_remove(struct file_pair *pair)
{
	list_del(&pair->node);
	securityfs_remove(pair->binary);
	securityfs_remove(pair->ascii);
	kfree(pair);
}

/* digest_list_add, digest_list_del */

/*
 * Adds or deletes a list. Without a path the name comes from the label, which
 * is used up as soon as the files are found, whatever comes after.
 *
 * As in the original, adding a loaded list under a second name leaves a second
 * pair of files behind, and a list is deleted through any of its pairs, so
 * that the others are left over. securityfs keeps the name of a file that is
 * still open when it is removed: adding the list again fails with -EEXIST.
 */
static int list_write_buf(enum list_op op, const char *path, const u8 *data,
			  size_t size)
{
	const char *name = path ?: label[0] ? label : "parser";
	char ascii[NAME_SIZE], binary[NAME_SIZE];
	u8 digest[SHA256_DIGEST_SIZE];
	struct file_pair *pair;
	int err;

	lockdep_assert_held(&lock);

	if (!size)
		return -ENOENT; /* IMA gives no digest of nothing */

	sha256(data, size, digest);
	err = pair_names(digest, kbasename(name), ascii, binary);
	if (err)
		return err;

	if (op == OP_ADD) {
		pair = pair_create(ascii, binary);
		if (IS_ERR(pair))
			return PTR_ERR(pair);
	} else {
		pair = pair_find(ascii);
		if (!pair)
			return -ENOENT;
	}

	if (!path)
		memset(label, 0, sizeof(label));

	if (op == OP_ADD) {
		err = list_load(digest, binary, data, size);
		if (err && err != -EEXIST)
			pair_remove(pair);
	} else {
		err = list_unload(digest);
		if (!err)
			pair_remove(pair);
	}

	return err;
}

/* Returns the size of data without an appended signature. */
static ssize_t payload_size(const u8 *data, size_t size)
{
	const size_t marker = sizeof(MODULE_SIG_STRING) - 1;
	struct module_signature sig;
	size_t sig_len;

	if (size <= marker + sizeof(sig) ||
	    memcmp(data + size - marker, MODULE_SIG_STRING, marker))
		return size;

	size -= marker + sizeof(sig);
	memcpy(&sig, data + size, sizeof(sig));
	sig_len = be32_to_cpu(sig.sig_len);
	if (sig_len > size)
		return -EINVAL;
	return size - sig_len;
}

static int list_write_path(enum list_op op, const char *path)
{
	struct file *file;
	ssize_t size;
	u8 *data;
	int err;

	file = filp_open(path, O_RDONLY, 0);
	if (IS_ERR(file))
		return PTR_ERR(file);

	err = deny_write_access(file);
	if (err)
		goto out_close;

	size = read_whole(file, &data);
	if (size < 0) {
		err = size;
		goto out_allow;
	}

	size = payload_size(data, size);
	if (size < 0) {
		err = size;
		goto out_free;
	}

	mutex_lock(&lock);
	err = list_write_buf(op, path, data, size);
	mutex_unlock(&lock);
out_free:
	kvfree(data);
out_allow:
	allow_write_access(file);
out_close:
	filp_close(file, NULL);
	return err;
}

static ssize_t list_write(enum list_op op, const char __user *ubuf, size_t len,
			  loff_t *ppos)
{
	char *buf;
	int err;

	if (*ppos)
		return -EINVAL;
	if (len > MAX_WRITE)
		return -EFBIG;
	if (len + 1 > MAX_COPY)
		return -ENOMEM;

	buf = kvmalloc(len + 1, GFP_KERNEL);
	if (!buf)
		return -ENOMEM;
	if (copy_from_user(buf, ubuf, len)) {
		kvfree(buf);
		return -EFAULT;
	}
	buf[len] = '\0';

	if (buf[0] == '/') {
		len = strlen(buf); /* a newline counts, what follows a NUL not */
		buf[strcspn(buf, "\n")] = '\0';
		err = list_write_path(op, buf);
	} else {
		mutex_lock(&lock);
		err = list_write_buf(op, NULL, buf, len);
		mutex_unlock(&lock);
	}

	kvfree(buf);
	return err ?: len;
}

static ssize_t list_add_write(struct file *file, const char __user *ubuf,
			      size_t len, loff_t *ppos)
{
	return list_write(OP_ADD, ubuf, len, ppos);
}

static ssize_t list_del_write(struct file *file, const char __user *ubuf,
			      size_t len, loff_t *ppos)
{
	return list_write(OP_DEL, ubuf, len, ppos);
}

static int list_write_open(struct inode *inode, struct file *file)
{
	if ((file->f_flags & O_ACCMODE) != O_WRONLY)
		return -EACCES;
	return test_and_set_bit(0, &busy) ? -EBUSY : 0;
}

static int list_write_release(struct inode *inode, struct file *file)
{
	clear_bit(0, &busy);
	return 0;
}

static const struct file_operations list_add_fops = {
	.owner = THIS_MODULE,
	.open = list_write_open,
	.write = list_add_write,
	.llseek = generic_file_llseek,
	.release = list_write_release,
};

static const struct file_operations list_del_fops = {
	.owner = THIS_MODULE,
	.open = list_write_open,
	.write = list_del_write,
	.llseek = generic_file_llseek,
	.release = list_write_release,
};

/* digest_list_label */

/* What a longer label left behind the new one stays, unless a NUL ends it. */
static ssize_t label_write(struct file *file, const char __user *ubuf,
			   size_t len, loff_t *ppos)
{
	char buf[LABEL_SIZE];
	size_t i;

	if (len >= sizeof(buf))
		return -EINVAL;
	if (copy_from_user(buf, ubuf, len))
		return -EFAULT;

	mutex_lock(&lock);
	memcpy(label, buf, len);
	for (i = 0; i < len; i++)
		if (buf[i] && !isgraph(buf[i]))
			break;
	if (i < len)
		memset(label, 0, sizeof(label));
	mutex_unlock(&lock);

	return i < len ? -EINVAL : len;
}

static const struct file_operations label_fops = {
	.owner = THIS_MODULE,
	.write = label_write,
	.llseek = generic_file_llseek,
};

/* digest_query */

struct query_iter {
	enum list_type type;
	const struct digest_list *list; /* of TYPE_DIGEST_LIST */
	const struct digest_item *item; /* of the other types */
	const struct digest_ref *ref;
};

/*
 * Takes the query apart: returns where its hexadecimal digits start. Only the
 * first ones are checked, and their number not at all.
 */
static const char *query_parse(u16 *algo)
{
	const char *sep = strchr(query, '-');
	size_t i;

	if (!sep)
		return ERR_PTR(-EINVAL);

	for (*algo = 0; *algo < ALGO_LAST; ++*algo)
		if (strlen(hash_algo_name[*algo]) == sep - query &&
		    !memcmp(hash_algo_name[*algo], query, sep - query))
			break;
	if (*algo == ALGO_LAST)
		return ERR_PTR(-ENOENT);

	for (i = 1; i <= QUERY_CHECKED; i++)
		if (!isxdigit(sep[i]))
			return ERR_PTR(-EINVAL);
	return sep + 1;
}

/* As with the label, what a longer query left behind the new one stays. */
static ssize_t query_write(struct file *file, const char __user *ubuf,
			   size_t len, loff_t *ppos)
{
	ssize_t ret = len;
	char buf[QUERY_SIZE];
	u16 algo;

	if (len >= sizeof(query))
		return -EINVAL;
	if (copy_from_user(buf, ubuf, len))
		ret = -EFAULT;

	mutex_lock(&lock);
	if (ret >= 0) {
		const char *hex;

		memcpy(query, buf, len);
		hex = query_parse(&algo);
		if (IS_ERR(hex))
			ret = PTR_ERR(hex);
	}
	if (ret < 0)
		memset(query, 0, sizeof(query));
	mutex_unlock(&lock);

	return ret;
}

/* Looks for the nth answer of iter->type. */
static bool query_find(struct query_iter *iter, u32 n)
{
	u8 digest[HASH_MAX_DIGESTSIZE];
	const char *hex;
	u16 algo;

	hex = query_parse(&algo);
	if (IS_ERR(hex) || hex2bin(digest, hex, hash_digest_size[algo]))
		return false;

	if (iter->type == TYPE_DIGEST_LIST) {
		if (n || algo != HASH_ALGO_SHA256)
			return false;
		iter->list = list_find(digest);
		return iter->list;
	}

	iter->item = item_find(iter->type, algo, digest);
	if (!iter->item)
		return false;
	list_for_each_entry(iter->ref, &iter->item->refs, node)
		if (!n--)
			return true;
	return false;
}

/*
 * The upper half of a position is the type, the lower half the answer's number
 * in it. One read() stops where a type ends; the next starts with the next.
 */
static loff_t query_pos(enum list_type type)
{
	return (loff_t)type << 32;
}

static void *query_start(struct seq_file *m, loff_t *pos)
{
	struct query_iter *iter = m->private;

	mutex_lock(&lock);
	for (iter->type = *pos >> 32; iter->type < TYPE_LAST; iter->type++) {
		if (query_find(iter, lower_32_bits(*pos)))
			return iter;
		*pos = query_pos(iter->type + 1);
	}
	return NULL;
}

static void *query_next(struct seq_file *m, void *v, loff_t *pos)
{
	struct query_iter *iter = v;

	if (iter->type == TYPE_DIGEST_LIST ||
	    list_is_last(&iter->ref->node, &iter->item->refs)) {
		*pos = query_pos(iter->type + 1);
		return NULL;
	}

	++*pos;
	iter->ref = list_next_entry(iter->ref, node);
	return iter;
}

static int query_show(struct seq_file *m, void *v)
{
	const struct query_iter *iter = v;

	if (iter->type == TYPE_DIGEST_LIST) {
		seq_printf(m, "%s (actions: 0): type: %d, size: %zu\n",
			   iter->list->name, iter->type, iter->list->size);
		return 0;
	}

	seq_printf(m, "%s (actions: 0): ", iter->ref->list->name);
	show_hdr(m, iter->ref->hdr);
	return 0;
}

static const struct seq_operations query_ops = {
	.start = query_start,
	.next = query_next,
	.stop = locked_stop,
	.show = query_show,
};

/* Not a seq_file when it cannot be read: pwrite() works then. */
static int query_open(struct inode *inode, struct file *file)
{
	if (test_and_set_bit(0, &busy))
		return -EBUSY;
	if (!(file->f_mode & FMODE_READ))
		return 0;
	if (!__seq_open_private(file, &query_ops, sizeof(struct query_iter))) {
		clear_bit(0, &busy);
		return -ENOMEM;
	}
	return 0;
}

static loff_t query_llseek(struct file *file, loff_t offset, int whence)
{
	if (!(file->f_mode & FMODE_READ))
		return generic_file_llseek(file, offset, whence);
	return seq_lseek(file, offset, whence);
}

static int query_release(struct inode *inode, struct file *file)
{
	if (file->f_mode & FMODE_READ)
		seq_release_private(inode, file);
	clear_bit(0, &busy);
	return 0;
}

static const struct file_operations query_fops = {
	.owner = THIS_MODULE,
	.open = query_open,
	.read = seq_read,
	.write = query_write,
	.llseek = query_llseek,
	.release = query_release,
};

/* digests_count */

static int digests_count_show(struct seq_file *m, void *v)
{
	mutex_lock(&lock);
	seq_printf(m, "Parser digests: %u\nFile digests: %u\n"
		   "Metadata digests: %u\nDigest list digests: %u\n",
		   counts[TYPE_PARSER], counts[TYPE_FILE],
		   counts[TYPE_METADATA], counts[TYPE_DIGEST_LIST]);
	mutex_unlock(&lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(digests_count);

/* The module */

static const struct {
	const char *name;
	umode_t mode;
	const struct file_operations *fops;
} controls[ARRAY_SIZE(control_files)] = {
	{ "digests_count", 0440, &digests_count_fops },
	{ "digest_list_add", 0200, &list_add_fops },
	{ "digest_list_del", 0200, &list_del_fops },
	{ "digest_list_label", 0600, &label_fops },
	{ "digest_query", 0600, &query_fops },
};

static void remove_all(void)
{
	struct file_pair *pair, *next_pair;
	struct digest_list *list;
	struct hlist_node *tmp;
	int i;

	for (i = 0; i < ARRAY_SIZE(control_files); i++)
		securityfs_remove(control_files[i]);
	list_for_each_entry_safe(pair, next_pair, &pairs, node)
		pair_remove(pair);
	securityfs_remove(loaded_dir);
	securityfs_remove(diglim_dir);

	hash_for_each_safe(lists, i, tmp, list, node) {
		hash_del(&list->node);
		list_free(list);
	}
}

static int create_dir(void)
{
	struct path integrity;
	struct dentry *dentry;
	int err = find_dir(INTEGRITY_DIR, &integrity);

	if (err)
		return err;

	dentry = securityfs_create_dir("diglim", integrity.dentry);
	path_put(&integrity);
	if (IS_ERR(dentry))
		return PTR_ERR(dentry);

	diglim_dir = dentry;
	return 0;
}

static int __init diglim_v3_init(void)
{
	struct dentry *dentry;
	int err, i;

	err = create_dir();
	if (err)
		return err;

	dentry = securityfs_create_dir("digest_lists_loaded", diglim_dir);
	if (IS_ERR(dentry))
		goto err_remove;
	loaded_dir = dentry;

	for (i = 0; i < ARRAY_SIZE(control_files); i++) {
		dentry = securityfs_create_file(controls[i].name,
						controls[i].mode, diglim_dir,
						NULL, controls[i].fops);
		if (IS_ERR(dentry))
			goto err_remove;
		control_files[i] = dentry;
	}

	pr_info("DIGLIM v3 interface for tests; protects nothing\n");
	return 0;

err_remove:
	remove_all();
	return PTR_ERR(dentry);
}

static void __exit diglim_v3_exit(void)
{
	remove_all();
}

module_init(diglim_v3_init);
module_exit(diglim_v3_exit);
MODULE_DESCRIPTION("DIGLIM v3 securityfs interface, a stand-in for tests");
MODULE_LICENSE("GPL");
