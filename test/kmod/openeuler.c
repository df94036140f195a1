// SPDX-License-Identifier: GPL-2.0 -- a stand-in, for tests, for a kernel of openEuler; protects nothing
/*
 * It adds to a stock 6.1 or 6.12 kernel the securityfs interface of openEuler's
 * IMA digest lists, with the answers and refusals of that code as of 5.10.
 * Nothing asks the digests loaded here: no hook measures or appraises a file by
 * them.
 *
 *	/sys/kernel/security/integrity/ima/
 *		digests_count		0440	digests of all types
 *		digest_list_data	0200	the path of a list to add
 *		digest_list_data_del	0200	the path of a list to delete
 *
 * What makes that kernel dangerous is here as it is there: a list that was not
 * measured, or not appraised by a signature, is no error, but switches the use
 * of digest lists for that action off until the next boot (here: until the
 * module is loaded again); a list with a fault is loaded up to the fault; and
 * deleting a list that was never added takes away from others.
 *
 * It differs where a module cannot look:
 *
 *	actions=	stands for ima_digest_list_pcr= (1) and
 *			ima_appraise_digest_list= (2) on the command line; reading
 *			/sys/module/openeuler/parameters/actions shows what is left
 *	measured	a file that the log of this kernel's IMA has by its path and
 *			the SHA-256 digest of its content
 *	appraised	a file with security.ima of type 3 or security.evm of type 5.
 *			Nobody verifies that signature: there is no key.
 *
 * writes, a parameter too, counts the calls of write(2).
 *
 * A file that is being opened while the module is unloaded is a race that
 * securityfs leaves to modules to lose: unload last.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <crypto/hash_info.h>
#include <crypto/sha2.h>
#include <linux/fs.h>
#include <linux/hashtable.h>
#include <linux/jhash.h>
#include <linux/kernel.h>
#include <linux/limits.h>
#include <linux/module.h>
#include <linux/security.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/vmalloc.h>
#include <linux/xattr.h>

#include "stand_in.h"

#define IMA_DIR		INTEGRITY_DIR "/ima"
#define IMA_LOG		IMA_DIR "/binary_runtime_measurements"
#define MAX_LOG		(4 * 1024 * 1024)
#define TYPE_LAST	4 /* key, parser, file, metadata */
#define XATTR_SIGNATURE	3
#define XATTR_PORTABLE	5

enum action { MEASURE = 1, APPRAISE = 2 };
enum list_op { OP_ADD, OP_DEL };

/* A digest, and how often it was added. */
struct digest_item {
	struct hlist_node node;
	u16 type;
	u16 algo;
	u16 modifiers;
	u16 count;
	u8 digest[];
};

static unsigned int actions = MEASURE;
module_param(actions, uint, 0444);
MODULE_PARM_DESC(actions, "what lists are used for: 1 measurement, 2 appraisal");

static unsigned int writes;
module_param(writes, uint, 0444);
MODULE_PARM_DESC(writes, "calls of write(2), to be read");

static DEFINE_MUTEX(lock); /* of everything here but busy */
static DEFINE_HASHTABLE(items, 12);
static long num_items;

static unsigned long busy; /* bit 0: one of the list files is open */
static struct dentry *files[3];

/* Digests */

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

static int item_add(const struct list_hdr *hdr, const u8 *digest)
{
	u16 type = le16_to_cpu(hdr->type), algo = le16_to_cpu(hdr->algo);
	struct digest_item *item = item_find(type, algo, digest);
	int size = hash_digest_size[algo];

	if (!item) {
		item = kzalloc(struct_size(item, digest, size), GFP_KERNEL);
		if (!item)
			return -ENOMEM;
		item->type = type;
		item->algo = algo;
		memcpy(item->digest, digest, size);
		hash_add(items, &item->node, jhash(digest, size, 0));
		num_items++;
	}

	item->modifiers |= le16_to_cpu(hdr->modifiers);
	if (item->count < U16_MAX)
		item->count++;
	return 0;
}

static void item_remove(struct digest_item *item)
{
	hash_del(&item->node);
	num_items--;
	kfree(item);
}

static void item_del(const struct list_hdr *hdr, const u8 *digest)
{
	struct digest_item *item = item_find(le16_to_cpu(hdr->type),
					     le16_to_cpu(hdr->algo), digest);

	if (item && !--item->count)
		item_remove(item);
}

/* Adds or deletes digest by digest; what came before a fault stays so. */
static int list_parse(enum list_op op, const u8 *pos, size_t size)
{
	const u8 *end = pos + size;

	if (!actions)
		return -EACCES;

	while (pos < end) {
		const struct list_hdr *hdr = (const struct list_hdr *)pos;
		u32 digest_size, i;

		if (end - pos < sizeof(*hdr) || hdr->version != 1 ||
		    le16_to_cpu(hdr->algo) >= ALGO_LAST ||
		    le16_to_cpu(hdr->type) >= TYPE_LAST)
			return -EINVAL;

		digest_size = hash_digest_size[le16_to_cpu(hdr->algo)];
		pos += sizeof(*hdr);
		for (i = 0; i < le32_to_cpu(hdr->count); i++) {
			if (end - pos < digest_size)
				return -EINVAL;
			if (op == OP_DEL)
				item_del(hdr, pos);
			else if (item_add(hdr, pos))
				return -ENOMEM;
			pos += digest_size;
			cond_resched();
		}

		if ((u64)i * digest_size != le32_to_cpu(hdr->datalen))
			return -EINVAL;
	}

	return 0;
}

/* What IMA did to a list */

/*
 * Reads the log of IMA. kernel_read() does not read seq_files that have no
 * read_iter(), as this one.
 */
static ssize_t read_log(u8 *log)
{
	struct file *file = filp_open(IMA_LOG, O_RDONLY, 0);
	struct kiocb kiocb;
	size_t size = 0;
	ssize_t n;

	if (IS_ERR(file))
		return PTR_ERR(file);

	init_sync_kiocb(&kiocb, file);
	kiocb.ki_pos = 0;
	do {
		struct kvec vec = { log + size, MAX_LOG - size };
		struct iov_iter iter;

		iov_iter_kvec(&iter, READ, &vec, 1, vec.iov_len);
		n = seq_read_iter(&kiocb, &iter);
		if (n > 0)
			size += n;
	} while (n > 0);

	filp_close(file, NULL);
	return n ?: size;
}

/*
 * In an entry of the templates ima-ng and ima-sig the end of the digest is
 * followed by the length of the path, the path, and a NUL.
 */
static bool is_measured(struct file *file, const u8 *data, size_t size)
{
	u8 *needle = kmalloc(SHA256_DIGEST_SIZE + sizeof(u32) + PATH_MAX,
			     GFP_KERNEL);
	char *buf = kmalloc(PATH_MAX, GFP_KERNEL), *path;
	u8 *log = kvmalloc(MAX_LOG, GFP_KERNEL);
	bool found = false;
	ssize_t left;
	size_t len;
	u32 n;

	if (!needle || !buf || !log)
		goto out;

	path = d_path(&file->f_path, buf, PATH_MAX);
	left = read_log(log);
	if (IS_ERR(path) || left < 0)
		goto out;

	sha256(data, size, needle);
	n = strlen(path) + 1;
	memcpy(needle + SHA256_DIGEST_SIZE, &n, sizeof(n));
	memcpy(needle + SHA256_DIGEST_SIZE + sizeof(n), path, n);
	len = SHA256_DIGEST_SIZE + sizeof(n) + n;

	for (; left >= len && !found; left--)
		found = !memcmp(log + left - len, needle, len);
out:
	kvfree(log);
	kfree(buf);
	kfree(needle);
	return found;
}

static bool xattr_has_type(struct file *file, const char *name, u8 type)
{
	u8 value[256];

	return __vfs_getxattr(file_dentry(file), file_inode(file), name, value,
			      sizeof(value)) > 0 && value[0] == type;
}

static void switch_off(enum action action, const char *what, struct file *file)
{
	pr_info("%pD not %s: no digest lists for that until the next boot\n",
		file, what);
	actions &= ~action;
}

static void check_measured_appraised(struct file *file, const u8 *data,
				     size_t size)
{
	if ((actions & MEASURE) && !is_measured(file, data, size))
		switch_off(MEASURE, "measured", file);
	if ((actions & APPRAISE) &&
	    !xattr_has_type(file, XATTR_NAME_IMA, XATTR_SIGNATURE) &&
	    !xattr_has_type(file, XATTR_NAME_EVM, XATTR_PORTABLE))
		switch_off(APPRAISE, "appraised by a signature", file);
}

/* digest_list_data, digest_list_data_del */

static int list_read(enum list_op op, const char *path)
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
	allow_write_access(file);
	if (size < 0) {
		err = size;
		goto out_close;
	}

	mutex_lock(&lock);
	check_measured_appraised(file, data, size);
	err = list_parse(op, data, size);
	mutex_unlock(&lock);
	kvfree(data);
out_close:
	filp_close(file, NULL);
	return err;
}

static ssize_t list_write(struct file *file, const char __user *ubuf,
			  size_t len, loff_t *ppos)
{
	enum list_op op = (uintptr_t)file_inode(file)->i_private;
	char *buf;
	int err;

	mutex_lock(&lock);
	writes++;
	mutex_unlock(&lock);

	if (*ppos)
		return -EINVAL;
	if (len > MAX_WRITE)
		return -EFBIG;

	buf = vmalloc(len + 1);
	if (!buf)
		return -ENOMEM;
	if (copy_from_user(buf, ubuf, len)) {
		vfree(buf);
		return -EFAULT;
	}
	buf[len] = '\0';

	err = -EINVAL; /* lists themselves are not taken */
	if (buf[0] == '/') {
		len = strlen(buf); /* a newline counts, what follows a NUL not */
		buf[strcspn(buf, "\n")] = '\0';
		err = list_read(op, buf);
	}

	vfree(buf);
	return err ?: len;
}

static int list_open(struct inode *inode, struct file *file)
{
	if (!(file->f_flags & O_WRONLY))
		return -EACCES;
	return test_and_set_bit(0, &busy) ? -EBUSY : 0;
}

static int list_release(struct inode *inode, struct file *file)
{
	clear_bit(0, &busy);
	return 0;
}

static const struct file_operations list_fops = {
	.owner = THIS_MODULE,
	.open = list_open,
	.write = list_write,
	.llseek = generic_file_llseek,
	.release = list_release,
};

/* digests_count */

static int digests_count_show(struct seq_file *m, void *v)
{
	mutex_lock(&lock);
	seq_printf(m, "%li\n", num_items);
	mutex_unlock(&lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(digests_count);

/* The module */

static const struct {
	const char *name;
	umode_t mode;
	void *data;
	const struct file_operations *fops;
} controls[ARRAY_SIZE(files)] = {
	{ "digests_count", 0440, NULL, &digests_count_fops },
	{ "digest_list_data", 0200, (void *)OP_ADD, &list_fops },
	{ "digest_list_data_del", 0200, (void *)OP_DEL, &list_fops },
};

static void remove_all(void)
{
	struct digest_item *item;
	struct hlist_node *tmp;
	int i;

	for (i = 0; i < ARRAY_SIZE(files); i++)
		securityfs_remove(files[i]);
	hash_for_each_safe(items, i, tmp, item, node)
		item_remove(item);
}

static int __init openeuler_init(void)
{
	struct path ima;
	int err, i;

	actions &= MEASURE | APPRAISE;
	writes = 0;
	err = find_dir(IMA_DIR, &ima);
	if (err)
		return err;

	for (i = 0; i < ARRAY_SIZE(files) && !err; i++) {
		struct dentry *dentry;

		dentry = securityfs_create_file(controls[i].name,
						controls[i].mode, ima.dentry,
						controls[i].data,
						controls[i].fops);
		err = PTR_ERR_OR_ZERO(dentry);
		if (!err)
			files[i] = dentry;
	}
	path_put(&ima);

	if (err)
		remove_all();
	else
		pr_info("openEuler digest lists for tests; protects nothing\n");
	return err;
}

static void __exit openeuler_exit(void)
{
	remove_all();
}

module_init(openeuler_init);
module_exit(openeuler_exit);

MODULE_DESCRIPTION("IMA digest list interface of openEuler for tests; protects nothing");
MODULE_LICENSE("GPL");
