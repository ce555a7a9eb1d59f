/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/bench/emptyfs.c - the FUSE floor: a filesystem whose handlers do nothing but let the calls succeed.
 *
 *   emptyfs [--attr-timeout SECONDS] [--box-attr-timeout SECONDS] [--counters FILE] MOUNTPOINT
 *
 * Model:   a tree of names in memory; a file has a size and reads as zeros. The kernel is told what mailfs tells it:
 *          directory names and attributes are cached (attributes of new/ and cur/ are not), message names are looked up
 *          each time, message pages stay (FOPEN_KEEP_CACHE), a file open for writing is FOPEN_DIRECT_IO, no
 *          writeback cache, no readdirplus, one device descriptor a thread. What it takes is thus the price of the
 *          requests alone.
 * Threads: one mutex over the tree; never held over a reply.
 * Prints "ready" when it is mounted and stays in the foreground. With --counters the number of requests of each
 * kind is written there at the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib.h>

#define CACHED_FOR 86400.0

struct node {
	ino_t ino;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	off_t size;
	struct timespec mtime;
	gboolean is_box;      /* new/ or cur/: other nodes deliver into it */
	GHashTable *children; /* char * (owned) -> struct node *; NULL: no directory */
	uint64_t lookups;     /* references of the kernel */
	unsigned links;	      /* names */
};

enum request {
	REQ_LOOKUP,
	REQ_FORGET,
	REQ_GETATTR,
	REQ_SETATTR,
	REQ_MKDIR,
	REQ_UNLINK,
	REQ_RMDIR,
	REQ_RENAME,
	REQ_LINK,
	REQ_CREATE,
	REQ_OPEN,
	REQ_READ,
	REQ_WRITE,
	REQ_FLUSH,
	REQ_FSYNC,
	REQ_RELEASE,
	REQ_OPENDIR,
	REQ_READDIR,
	REQ_RELEASEDIR,
	REQ_FSYNCDIR,
	REQ_GETXATTR,
	REQ_COUNT
};

static const char *const request_names[REQ_COUNT] = { "lookup", "forget", "getattr", "setattr", "mkdir", "unlink",
	"rmdir", "rename", "link", "create", "open", "read", "write", "flush", "fsync", "release", "opendir", "readdir",
	"releasedir", "fsyncdir", "getxattr" };

static GMutex tree_mutex;
static struct node root; /* protected by tree_mutex, as are all nodes */
static ino_t last_ino = FUSE_ROOT_ID;
static uint64_t requests[REQ_COUNT];	 /* atomic */
static double attr_timeout = CACHED_FOR; /* of files */
static double box_attr_timeout;		 /* of new/ and cur/ */
static const char zeros[1 << 20];

static void count(enum request request)
{
	__atomic_fetch_add(&requests[request], 1, __ATOMIC_RELAXED);
}

static struct node *get_node(fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? &root : (struct node *)(uintptr_t)ino;
}

static void touch_locked(struct node *node)
{
	clock_gettime(CLOCK_REALTIME, &node->mtime);
}

static struct node *new_node_locked(fuse_req_t req, mode_t mode)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct node *node = g_new0(struct node, 1);

	node->ino = ++last_ino;
	node->mode = mode;
	node->uid = ctx->uid;
	node->gid = ctx->gid;
	touch_locked(node);
	if (S_ISDIR(mode))
		node->children = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	return node;
}

static void collect_locked(struct node *node)
{
	if (node == &root || node->lookups || node->links)
		return;
	if (node->children)
		g_hash_table_destroy(node->children);
	g_free(node);
}

static void add_name_locked(struct node *dir, const char *name, struct node *node)
{
	struct node *old = g_hash_table_lookup(dir->children, name);

	node->links++;
	g_hash_table_replace(dir->children, g_strdup(name), node);
	touch_locked(dir);
	if (old) {
		old->links--;
		collect_locked(old);
	}
}

static void fill_attr_locked(const struct node *node, struct stat *ret)
{
	*ret = (struct stat){
		.st_ino = node->ino,
		.st_mode = node->mode,
		.st_nlink = node->children ? 1 : node->links,
		.st_uid = node->uid,
		.st_gid = node->gid,
		.st_size = node->size,
		.st_blocks = (node->size + 511) / 512,
		.st_blksize = 4096,
		.st_atim = node->mtime,
		.st_mtim = node->mtime,
		.st_ctim = node->mtime,
	};
}

static double attr_timeout_of(const struct node *node)
{
	if (node->children)
		return node->is_box ? box_attr_timeout : CACHED_FOR;
	return attr_timeout;
}

/* One more reference of the kernel goes with this entry. */
static void fill_entry_locked(struct node *node, struct fuse_entry_param *ret)
{
	node->lookups++;
	*ret = (struct fuse_entry_param){
		.ino = (fuse_ino_t)(uintptr_t)node,
		.generation = 1,
		.entry_timeout = node->children ? CACHED_FOR : 0,
		.attr_timeout = attr_timeout_of(node),
	};
	fill_attr_locked(node, &ret->attr);
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	conn->want &= ~(unsigned)(FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_AUTO_INVAL_DATA |
				  FUSE_CAP_WRITEBACK_CACHE);
	conn->want |= conn->capable & (FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_PARALLEL_DIROPS);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry;
	struct node *node;

	count(REQ_LOOKUP);
	g_mutex_lock(&tree_mutex);
	node = g_hash_table_lookup(get_node(parent)->children, name);
	if (node)
		fill_entry_locked(node, &entry);
	g_mutex_unlock(&tree_mutex);
	if (node)
		fuse_reply_entry(req, &entry);
	else
		fuse_reply_err(req, ENOENT);
}

static void forget_locked(fuse_ino_t ino, uint64_t lookups)
{
	struct node *node = get_node(ino);

	node->lookups -= MIN(lookups, node->lookups);
	collect_locked(node);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups)
{
	count(REQ_FORGET);
	g_mutex_lock(&tree_mutex);
	forget_locked(ino, lookups);
	g_mutex_unlock(&tree_mutex);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t n, struct fuse_forget_data *forgets)
{
	count(REQ_FORGET);
	g_mutex_lock(&tree_mutex);
	for (size_t i = 0; i < n; i++)
		forget_locked(forgets[i].ino, forgets[i].nlookup);
	g_mutex_unlock(&tree_mutex);
	fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	const struct node *node = get_node(ino);
	struct stat st;

	count(REQ_GETATTR);
	g_mutex_lock(&tree_mutex);
	fill_attr_locked(node, &st);
	g_mutex_unlock(&tree_mutex);
	fuse_reply_attr(req, &st, attr_timeout_of(node));
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct node *node = get_node(ino);
	struct stat st;

	count(REQ_SETATTR);
	g_mutex_lock(&tree_mutex);
	if (to_set & FUSE_SET_ATTR_MODE)
		node->mode = (node->mode & S_IFMT) | (attr->st_mode & 07777);
	if (to_set & FUSE_SET_ATTR_UID)
		node->uid = attr->st_uid;
	if (to_set & FUSE_SET_ATTR_GID)
		node->gid = attr->st_gid;
	if (to_set & FUSE_SET_ATTR_SIZE)
		node->size = attr->st_size;
	fill_attr_locked(node, &st);
	g_mutex_unlock(&tree_mutex);
	fuse_reply_attr(req, &st, attr_timeout_of(node));
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct fuse_entry_param entry;
	struct node *node;

	count(REQ_MKDIR);
	g_mutex_lock(&tree_mutex);
	node = new_node_locked(req, S_IFDIR | (mode & 07777));
	node->is_box = g_str_equal(name, "new") || g_str_equal(name, "cur");
	add_name_locked(get_node(parent), name, node);
	fill_entry_locked(node, &entry);
	g_mutex_unlock(&tree_mutex);
	fuse_reply_entry(req, &entry);
}

static int remove_name(fuse_ino_t parent, const char *name)
{
	struct node *dir = get_node(parent), *node;
	int r = ENOENT;

	g_mutex_lock(&tree_mutex);
	node = g_hash_table_lookup(dir->children, name);
	if (node && node->children && g_hash_table_size(node->children)) {
		r = ENOTEMPTY;
	} else if (node) {
		g_hash_table_remove(dir->children, name);
		touch_locked(dir);
		node->links--;
		collect_locked(node);
		r = 0;
	}
	g_mutex_unlock(&tree_mutex);
	return r;
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	count(REQ_UNLINK);
	fuse_reply_err(req, remove_name(parent, name));
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	count(REQ_RMDIR);
	fuse_reply_err(req, remove_name(parent, name));
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
	unsigned flags)
{
	struct node *from = get_node(parent), *node;

	count(REQ_RENAME);
	if (flags) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	g_mutex_lock(&tree_mutex);
	node = g_hash_table_lookup(from->children, name);
	if (node) {
		add_name_locked(get_node(new_parent), new_name, node);
		g_hash_table_remove(from->children, name);
		touch_locked(from);
		node->links--;
	}
	g_mutex_unlock(&tree_mutex);
	fuse_reply_err(req, node ? 0 : ENOENT);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
	struct fuse_entry_param entry;
	gboolean exists;

	count(REQ_LINK);
	g_mutex_lock(&tree_mutex);
	exists = g_hash_table_contains(get_node(new_parent)->children, new_name);
	if (!exists) {
		add_name_locked(get_node(new_parent), new_name, get_node(ino));
		fill_entry_locked(get_node(ino), &entry);
	}
	g_mutex_unlock(&tree_mutex);
	if (exists)
		fuse_reply_err(req, EEXIST);
	else
		fuse_reply_entry(req, &entry);
}

static void set_open_flags(struct fuse_file_info *fi)
{
	if ((fi->flags & O_ACCMODE) == O_RDONLY)
		fi->keep_cache = 1;
	else
		fi->direct_io = 1;
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct fuse_entry_param entry;
	struct node *node;

	count(REQ_CREATE);
	g_mutex_lock(&tree_mutex);
	node = g_hash_table_lookup(get_node(parent)->children, name);
	if (!node) {
		node = new_node_locked(req, S_IFREG | (mode & 07777));
		add_name_locked(get_node(parent), name, node);
	}
	fill_entry_locked(node, &entry);
	g_mutex_unlock(&tree_mutex);
	set_open_flags(fi);
	fuse_reply_create(req, &entry, fi);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	count(REQ_OPEN);
	set_open_flags(fi);
	fuse_reply_open(req, fi);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	off_t end;

	count(REQ_READ);
	g_mutex_lock(&tree_mutex);
	end = get_node(ino)->size;
	g_mutex_unlock(&tree_mutex);
	if (off >= end)
		fuse_reply_buf(req, NULL, 0);
	else
		fuse_reply_buf(req, zeros, MIN(MIN(size, sizeof zeros), (size_t)(end - off)));
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct node *node = get_node(ino);

	count(REQ_WRITE);
	g_mutex_lock(&tree_mutex);
	node->size = MAX(node->size, off + (off_t)size);
	touch_locked(node);
	g_mutex_unlock(&tree_mutex);
	fuse_reply_write(req, size);
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	count(REQ_FLUSH);
	fuse_reply_err(req, 0);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	count(REQ_FSYNC);
	fuse_reply_err(req, 0);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	count(REQ_RELEASE);
	fuse_reply_err(req, 0);
}

struct listing {
	char *name;
	struct stat st;
};

static void free_listing(void *item)
{
	struct listing *listing = item;

	g_free(listing->name);
	g_free(listing);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	GPtrArray *snapshot = g_ptr_array_new_with_free_func(free_listing);
	GHashTableIter iter;
	void *name, *node;

	count(REQ_OPENDIR);
	g_mutex_lock(&tree_mutex);
	g_hash_table_iter_init(&iter, get_node(ino)->children);
	while (g_hash_table_iter_next(&iter, &name, &node)) {
		struct listing *item = g_new0(struct listing, 1);

		item->name = g_strdup(name);
		fill_attr_locked(node, &item->st);
		g_ptr_array_add(snapshot, item);
	}
	g_mutex_unlock(&tree_mutex);
	fi->fh = (uintptr_t)snapshot;
	fuse_reply_open(req, fi);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	const GPtrArray *snapshot = (GPtrArray *)(uintptr_t)fi->fh;
	g_autofree char *buf = g_malloc(size);
	size_t used = 0;

	count(REQ_READDIR);
	for (unsigned i = (unsigned)off; i < snapshot->len; i++) {
		const struct listing *item = snapshot->pdata[i];
		size_t need = fuse_add_direntry(req, buf + used, size - used, item->name, &item->st, (off_t)i + 1);

		if (need > size - used)
			break;
		used += need;
	}
	fuse_reply_buf(req, buf, used);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	count(REQ_RELEASEDIR);
	g_ptr_array_unref((GPtrArray *)(uintptr_t)fi->fh);
	fuse_reply_err(req, 0);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	count(REQ_FSYNCDIR);
	fuse_reply_err(req, 0);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	count(REQ_GETXATTR);
	fuse_reply_err(req, EOPNOTSUPP);
}

static const struct fuse_lowlevel_ops ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.mkdir = op_mkdir,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.rename = op_rename,
	.link = op_link,
	.create = op_create,
	.open = op_open,
	.read = op_read,
	.write = op_write,
	.flush = op_flush,
	.fsync = op_fsync,
	.release = op_release,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.releasedir = op_releasedir,
	.fsyncdir = op_fsyncdir,
	.getxattr = op_getxattr,
};

static int write_counters(const char *path)
{
	FILE *f = fopen(path, "we");

	if (!f) {
		fprintf(stderr, "emptyfs: %s: %s\n", path, g_strerror(errno));
		return 1;
	}
	for (int i = 0; i < REQ_COUNT; i++)
		fprintf(f, "%s %" PRIu64 "\n", request_names[i], requests[i]);
	return fclose(f) != 0;
}

int main(int argc, char **argv)
{
	const char *counters = NULL;
	const GOptionEntry entries[] = {
		{ "attr-timeout", 0, 0, G_OPTION_ARG_DOUBLE, &attr_timeout,
			"how long the kernel keeps the attributes of files", "SECONDS" },
		{ "box-attr-timeout", 0, 0, G_OPTION_ARG_DOUBLE, &box_attr_timeout,
			"how long the kernel keeps the attributes of new/ and cur/ (0)", "SECONDS" },
		{ "counters", 0, 0, G_OPTION_ARG_FILENAME, &counters, "write the number of requests there at the end",
			"FILE" },
		{ NULL },
	};
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	g_autoptr(GOptionContext) context = g_option_context_new("MOUNTPOINT");
	g_autoptr(GError) error = NULL;
	struct fuse_loop_config *config;
	struct fuse_session *session;
	int r = 1;

	g_option_context_add_main_entries(context, entries, NULL);
	if (!g_option_context_parse(context, &argc, &argv, &error)) {
		fprintf(stderr, "emptyfs: %s\n", error->message);
		return 2;
	}
	if (argc != 2) {
		fprintf(stderr, "emptyfs: see --help\n");
		return 2;
	}
	root = (struct node){
		.ino = FUSE_ROOT_ID,
		.mode = S_IFDIR | 0755,
		.uid = getuid(),
		.gid = getgid(),
		.lookups = 1,
		.children = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL),
	};
	touch_locked(&root);
	fuse_opt_add_arg(&args, "emptyfs");
	fuse_opt_add_arg(&args, "-odefault_permissions,allow_other,nosuid,nodev,fsname=emptyfs,subtype=emptyfs");
	session = fuse_session_new(&args, &ops, sizeof ops, NULL);
	if (!session)
		return 1;
	if (fuse_set_signal_handlers(session) == 0 && fuse_session_mount(session, argv[1]) == 0) {
		printf("ready\n");
		fflush(stdout);
		config = fuse_loop_cfg_create();
		fuse_loop_cfg_set_clone_fd(config, 1);
		r = fuse_session_loop_mt(session, config) != 0;
		fuse_loop_cfg_destroy(config);
		fuse_session_unmount(session);
	}
	fuse_remove_signal_handlers(session);
	fuse_session_destroy(session);
	fuse_opt_free_args(&args);
	if (counters)
		r |= write_counters(counters);
	return r;
}
