/* SPDX-License-Identifier: GPL-2.0 */
/* What the stand-ins of this directory share. */

#ifndef STAND_IN_H
#define STAND_IN_H

#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/namei.h>
#include <linux/types.h>

#define INTEGRITY_DIR	"/sys/kernel/security/integrity"
#define MAX_WRITE	(64 * 1024 * 1024 - 1)
#define ALGO_LAST	20 /* newer kernels number more algorithms */

/*
 * Header of a block of digests, in a list. DIGLIM v3 has it in little-endian
 * byte order, openEuler in the host's, which is the same here.
 */
struct list_hdr {
	u8 version;
	u8 reserved;
	__le16 type;
	__le16 modifiers;
	__le16 algo;
	__le32 count;
	__le32 datalen;
} __packed;

/*
 * Finds a directory below /sys/kernel/security/integrity. The kernel keeps its
 * dentry to itself. Drop the path when done.
 */
static int find_dir(const char *name, struct path *dir)
{
	int err = kern_path(name, LOOKUP_FOLLOW | LOOKUP_DIRECTORY, dir);

	if (!err && dir->dentry->d_sb->s_magic != SECURITYFS_MAGIC) {
		path_put(dir);
		err = -ENODEV;
	}
	if (err)
		pr_err("no directory %s (%d): is securityfs mounted?\n", name,
		       err);
	return err;
}

/*
 * Reads a whole file into *data, for kvfree(). kernel_read_file() would do, but
 * IPE warns of kinds of files that it does not know. IMA has measured the file,
 * if it wants to, when it was opened.
 */
static ssize_t read_whole(struct file *file, u8 **data)
{
	struct inode *inode = file_inode(file);
	loff_t size = i_size_read(inode), pos = 0;

	if (!S_ISREG(inode->i_mode) || size <= 0)
		return -EINVAL;
	if (size > INT_MAX)
		return -EFBIG;

	*data = kvmalloc(size, GFP_KERNEL);
	if (!*data)
		return -ENOMEM;

	while (pos < size) {
		ssize_t n = kernel_read(file, *data + pos, size - pos, &pos);

		if (n <= 0) {
			kvfree(*data);
			return n ?: -EIO;
		}
	}

	return size;
}

#endif
