/* SPDX-License-Identifier: Apache-2.0 */
/* A whole copy between two threads of the test, over a socket pair that the test may cut. */
#include "test.h"

#include "folder.h"

#include "receiver.h"
#include "sender.h"
#include "target.h"

#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_MS 20000

static const uint8_t key[FILES_KEY_SIZE] = "a key that the test has";

/* What the file system seems to be, instead of what it is. */
static bool is_on_disk, links_nothing;

int linkat(int from, const char *path, int to, const char *name, int flags)
{
	if (!links_nothing)
		return (int)syscall(SYS_linkat, from, path, to, name, flags);
	errno = EPERM;
	return -1;
}

int fstatfs(int fd, struct statfs *status)
{
	(void)fd;
	*status = (struct statfs){.f_type = is_on_disk ? EXT4_SUPER_MAGIC : TMPFS_MAGIC};
	return 0;
}

/* One end. After `budget` bytes its writes fail, as if its process were killed. */
struct end {
	int fd;
	int64_t budget;
	struct files_report report;
	struct files_channel *channel;
	struct files_walk *walk;
	int again, walked; /* a folder to walk next, and when that has begun; -1 */
	int ret;
};

static ssize_t end_read(void *arg, void *data, size_t size)
{
	ssize_t count = read(((struct end *)arg)->fd, data, size);

	return count >= 0 ? count : -errno;
}

static ssize_t end_write(void *arg, const void *data, size_t size)
{
	struct end *end = arg;
	ssize_t count;

	if (end->budget == 0)
		return -EPIPE;
	if ((int64_t)size > end->budget)
		size = (size_t)end->budget;
	count = send(end->fd, data, size, MSG_NOSIGNAL);
	if (count > 0)
		end->budget -= count;
	return count >= 0 ? count : -errno;
}

static int end_wait(void *arg, bool to_read, bool to_write, int timeout_ms)
{
	struct pollfd fd = {.fd = ((struct end *)arg)->fd, .events = (short)((to_read ? POLLIN : 0) | (to_write ? POLLOUT : 0))};
	int count = poll(&fd, 1, timeout_ms);

	return count > 0 ? 0 : count == 0 ? -ETIMEDOUT : -errno;
}

static void open_end(struct end *end, int fd, bool is_client, bool is_sealed)
{
	struct files_transport transport = {end_read, end_write, end_wait, end, is_sealed};

	fcntl(fd, F_SETFL, O_NONBLOCK);
	*end = (struct end){.fd = fd, .budget = INT64_MAX, .walked = -1};
	assert_int_equal(files_channel_new(&transport, key, is_client, TIMEOUT_MS, &end->channel), 0);
}

static int next_twice(void *arg, struct files_found *found);

static void *run_sender(void *arg)
{
	struct end *end = arg;
	struct files_source source = {.next = next_twice, .arg = end};

	end->ret = files_send(end->channel, &source, &end->report);
	shutdown(end->fd, SHUT_RDWR);
	return NULL;
}

struct copy {
	struct end sender, receiver;
	struct files_receiver_options options;
	int64_t sender_budget, receiver_budget; /* 0: no limit */
	bool twice, is_sealed;
	const char *then; /* a folder whose content is copied after the first one's; NULL */
	char text[1024]; /* what failed or was left out */
};

static void note(void *arg, enum files_result result, const struct files_bytes *name, const struct files_bytes *text)
{
	struct copy *copy = arg;
	size_t used = strlen(copy->text);

	if (result != FILES_OK)
		snprintf(copy->text + used, sizeof copy->text - used, "%.*s: %.*s\n", (int)name->length, (const char *)name->at, (int)text->length,
			 (const char *)text->at);
}

/* A descriptor that stays open keeps its partial file locked. */
static int count_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	int count = 0;

	while (folder && readdir(folder))
		count++;
	if (folder)
		closedir(folder);
	return count;
}

/* Copies the content of the folder `from` into `to`. Returns the sender's result. */
static int run_copy(struct copy *copy, const char *from, const char *to)
{
	int descriptors = count_descriptors();
	int pair[2], source, root;
	pthread_t thread;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	open_end(&copy->sender, pair[0], true, copy->is_sealed);
	open_end(&copy->receiver, pair[1], false, copy->is_sealed);
	if (copy->sender_budget)
		copy->sender.budget = copy->sender_budget;
	if (copy->receiver_budget)
		copy->receiver.budget = copy->receiver_budget;
	copy->text[0] = '\0';
	copy->sender.report.entry = note;
	copy->sender.report.arg = copy;
	source = open(from, O_RDONLY | O_DIRECTORY);
	mkdir(to, 0755);
	root = open(to, O_RDONLY | O_DIRECTORY);
	assert_true(source >= 0 && root >= 0);
	assert_int_equal(files_walk_new(source, ".", "", false, true, &copy->sender.walk), 0);
	copy->sender.again = copy->then ? open(copy->then, O_RDONLY | O_DIRECTORY) : copy->twice ? dup(source) : -1;
	copy->options.root = root;
	copy->options.report = &copy->receiver.report;
	assert_int_equal(pthread_create(&thread, NULL, run_sender, &copy->sender), 0);
	copy->receiver.ret = files_receive(copy->receiver.channel, &copy->options);
	shutdown(copy->receiver.fd, SHUT_RDWR);
	pthread_join(thread, NULL);
	files_walk_free(&copy->sender.walk);
	files_channel_free(&copy->sender.channel);
	files_channel_free(&copy->receiver.channel);
	close(pair[0]);
	close(pair[1]);
	close(source);
	close(root);
	if (copy->sender.walked >= 0)
		close(copy->sender.walked);
	if (copy->sender.again >= 0)
		close(copy->sender.again);
	assert_int_equal(count_descriptors(), descriptors);
	return copy->sender.ret;
}

static void copy_well(struct copy *copy, const char *from, const char *to)
{
	assert_int_equal(run_copy(copy, from, to), 0);
	assert_int_equal(copy->receiver.ret, 0);
}

static void write_random(const char *path, size_t size, unsigned seed)
{
	FILE *file;

	write_text(path, "");
	file = fopen(path, "w");
	assert_non_null(file);
	for (size_t i = 0; i < size; i++)
		putc(rand_r(&seed) >> 8, file);
	fclose(file);
}

static void assert_same(const char *a, const char *b)
{
	FILE *one = fopen(a, "r"), *other = fopen(b, "r");
	struct stat first, second;
	int x, y;

	if (!one || !other)
		fail_msg("%s is missing", one ? b : a);
	do {
		x = getc(one);
		y = getc(other);
		if (x != y)
			fail_msg("%s and %s differ at %ld", a, b, ftell(one) - 1);
	} while (x != EOF);
	assert_int_equal(fstat(fileno(one), &first), 0);
	assert_int_equal(fstat(fileno(other), &second), 0);
	assert_int_equal(first.st_mode, second.st_mode);
	assert_memory_equal(&first.st_mtim, &second.st_mtim, sizeof first.st_mtim);
	fclose(one);
	fclose(other);
}

TEST(a_tree_arrives_with_rights_times_links_and_any_names)
{
	struct copy copy = {0};
	struct timespec times[2] = {{1, 2}, {-86400, 999999999}};
	struct stat status;
	char link[64] = "";

	write_text("a/x/y/one", "1");
	write_text("a/x/two\n\xff\x01name", "22");
	write_text("a/empty", "");
	mkdir("a/x/none", 0750);
	chmod("a/x/y/one", 0640);
	utimensat(AT_FDCWD, "a/x/y/one", times, 0);
	assert_int_equal(symlink("y/one", "a/x/link"), 0);
	utimensat(AT_FDCWD, "a/x/none", times, 0);
	chmod("a/x/y", 0555);
	copy_well(&copy, "a", "b");
	assert_same("a/x/y/one", "b/x/y/one");
	assert_same("a/x/two\n\xff\x01name", "b/x/two\n\xff\x01name");
	assert_same("a/empty", "b/empty");
	assert_int_equal(readlink("b/x/link", link, sizeof link), 5);
	assert_string_equal(link, "y/one");
	stat("b/x/none", &status);
	assert_int_equal(status.st_mode & 0777, 0750);
	assert_int_equal(status.st_mtim.tv_sec, -86400);
	stat("b/x/y", &status);
	assert_int_equal(status.st_mode & 0777, 0555);
	assert_int_equal(copy.sender.report.files, 3);
	assert_int_equal(copy.sender.report.failed + copy.sender.report.left_out, 0);
	/* A second time there is nothing to send. */
	copy = (struct copy){0};
	copy_well(&copy, "a", "b");
	assert_int_equal(copy.sender.report.unchanged, 3);
	assert_int_equal(copy.sender.report.bytes, 0);
	chmod("a/x/y", 0755);
	chmod("b/x/y", 0755);
}

TEST(many_small_files_and_a_large_one_arrive)
{
	struct copy copy = {0};
	char path[32], other[32];

	mkdir("a", 0755);
	for (int i = 0; i < 400; i++) {
		snprintf(path, sizeof path, "a/%d", i);
		write_random(path, (size_t)i, (unsigned)i);
	}
	write_random("a/large", 3000001, 5);
	copy_well(&copy, "a", "b");
	for (int i = 0; i < 400; i++) {
		snprintf(path, sizeof path, "a/%d", i);
		snprintf(other, sizeof other, "b/%d", i);
		assert_same(path, other);
	}
	assert_same("a/large", "b/large");
	assert_int_equal(copy.receiver.report.bytes, copy.sender.report.bytes);
}

/* Every entry that was said to be done is there, whole, and nothing else is there but partial files. */
TEST(a_copy_that_was_cut_anywhere_goes_on_and_ends_right)
{
	for (unsigned seed = 1; seed <= 6; seed++) {
		struct copy copy = {0};
		unsigned random = seed;
		int tries = 0;

		write_random("a/large", 1500000, seed);
		write_random("a/other", 70000, seed + 1);
		assert_int_equal(system("rm -rf b"), 0);
		do {
			copy = (struct copy){0};
			*(seed % 2 ? &copy.sender_budget : &copy.receiver_budget) = 1 + rand_r(&random) % (seed % 2 ? 900000 : 700);
			if (++tries > 5)
				copy.sender_budget = copy.receiver_budget = 0;
		} while (run_copy(&copy, "a", "b") != 0);
		assert_same("a/large", "b/large");
		assert_same("a/other", "b/other");
		assert_int_equal(system("test -z \"$(find b -name '.securdma*')\""), 0);
	}
}

/* So many that the sender has had answers, and asks about none of those that come after them. */
static void make_many(const char *folder)
{
	char path[64];

	for (int i = 0; i < 200; i++) {
		snprintf(path, sizeof path, "%s/many/%d", folder, i);
		write_text(path, "one of many");
	}
}

TEST(a_copy_of_many_small_files_that_was_cut_goes_on_and_ends_right)
{
	for (unsigned seed = 1; seed <= 6; seed++) {
		struct copy copy = {.then = "a"};
		unsigned random = seed;
		int cuts = 0;

		is_on_disk = seed % 3 == 0;
		assert_int_equal(system("rm -rf a b first"), 0);
		make_many("first");
		make_many("a/more");
		make_many("a/again");
		write_random("a/large", 200000, seed);
		do {
			copy = (struct copy){.then = "a"};
			if (++cuts < 8)
				*(seed % 2 ? &copy.receiver_budget : &copy.sender_budget) = 2000 + rand_r(&random) % (seed % 2 ? 16000 : 60000);
		} while (run_copy(&copy, "first", "b") != 0 || copy.receiver.ret != 0);
		assert_int_equal(system("diff -r a/more b/more && diff -r a/again b/again && diff -r first/many b/many && cmp a/large b/large"), 0);
		assert_int_equal(system("test -z \"$(find b -name '.securdma*')\""), 0);
	}
	is_on_disk = false;
}

TEST(a_partial_file_is_used_as_far_as_it_is_right)
{
	struct copy copy = {.sender_budget = 1000000};
	char partial[FILES_PARTIAL_SIZE], path[128];
	const struct files_bytes name = {(const uint8_t *)"large", 5};
	struct stat status;
	int fd;

	write_random("a/large", 1500000, 3);
	assert_int_not_equal(run_copy(&copy, "a", "b"), 0);
	files_partial_name(&name, partial);
	snprintf(path, sizeof path, "b/%s", partial);
	assert_int_equal(stat(path, &status), 0);
	assert_true(status.st_size > 300000);
	copy = (struct copy){0};
	copy_well(&copy, "a", "b");
	assert_same("a/large", "b/large");
	assert_true(copy.sender.report.bytes <= 1500000 - 300000);
	/* What changed at the other end meanwhile is sent again. */
	assert_int_equal(rename("b/large", path), 0);
	fd = open(path, O_RDWR);
	assert_int_equal(pwrite(fd, "wrong", 5, 700000), 5);
	close(fd);
	copy = (struct copy){0};
	copy_well(&copy, "a", "b");
	assert_same("a/large", "b/large");
	assert_true(copy.sender.report.bytes >= 800000 && copy.sender.report.bytes < 1000000);
}

TEST(holes_stay_holes)
{
	struct copy copy = {0};
	struct stat status;
	int fd;

	mkdir("a", 0755);
	fd = open("a/sparse", O_RDWR | O_CREAT, 0644);
	assert_int_equal(pwrite(fd, "begin", 5, 1 << 20), 5);
	assert_int_equal(pwrite(fd, "middle", 6, 40 << 20), 6);
	assert_int_equal(ftruncate(fd, 64 << 20), 0);
	assert_int_equal(fstat(fd, &status), 0);
	close(fd);
	if (status.st_blocks > 4096)
		skip(); /* this file system keeps no holes */
	copy_well(&copy, "a", "b");
	assert_int_equal(system("cmp a/sparse b/sparse"), 0);
	assert_int_equal(stat("b/sparse", &status), 0);
	assert_true(status.st_size == 64 << 20 && status.st_blocks < 4096);
	assert_true(copy.sender.report.bytes < 1 << 20);
	assert_int_equal(copy.sender.report.bytes + copy.sender.report.bytes_kept, 64 << 20);
}

TEST(what_cannot_be_copied_is_said_and_the_rest_is_copied)
{
	struct copy copy = {0};
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "a/socket"};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	write_text("a/good", "good");
	write_text("a/folder", "a file");
	write_text("b/folder/x", "a folder");
	assert_int_equal(mkfifo("a/fifo", 0600), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	close(fd);
	assert_int_equal(symlink("/etc/passwd", "a/absolute"), 0);
	assert_int_equal(symlink("x/../../../up", "a/up"), 0);
	copy_well(&copy, "a", "b");
	assert_same("a/good", "b/good");
	assert_text_says(copy.text, "folder: a folder of this name is there");
	assert_text_says(copy.text, "fifo: not copied: it is a FIFO");
	assert_text_says(copy.text, "socket: not copied: it is a socket");
	assert_text_says(copy.text, "absolute: the link leads out");
	assert_text_says(copy.text, "up: the link leads out");
	assert_int_equal(copy.sender.report.failed, 1);
	assert_int_equal(copy.sender.report.left_out, 4);
	assert_int_not_equal(access("b/absolute", F_OK), 0);
}

TEST(a_link_in_the_target_is_not_followed)
{
	struct copy copy = {0};

	write_text("a/d/x", "new");
	write_text("a/f", "new");
	write_text("outside/x", "old");
	mkdir("b", 0755);
	assert_int_equal(symlink("../outside", "b/d"), 0);
	assert_int_equal(symlink("../outside/x", "b/f"), 0);
	copy_well(&copy, "a", "b");
	assert_int_equal(system("grep -q old outside/x && grep -q new b/f && test ! -L b/f"), 0);
	assert_text_says(copy.text, "d: a part of its path is not a folder, or is a link");
	assert_text_says(copy.text, "d/x: ");
}

TEST(a_device_or_fifo_in_the_target_is_replaced_and_not_opened)
{
	struct copy copy = {0};
	char partial[FILES_PARTIAL_SIZE], path[128];
	const struct files_bytes name = {(const uint8_t *)"f", 1};

	write_text("a/f", "new");
	mkdir("b", 0755);
	assert_int_equal(mkfifo("b/f", 0600), 0);
	files_partial_name(&name, partial);
	snprintf(path, sizeof path, "b/%s", partial);
	assert_int_equal(mkfifo(path, 0600), 0);
	copy_well(&copy, "a", "b");
	assert_same("a/f", "b/f");
}

/* Walks a folder after the first one. */
static int next_twice(void *arg, struct files_found *found)
{
	struct end *end = arg;
	int ret = files_walk_next(end->walk, found);

	if (ret != 0 || end->again < 0)
		return ret;
	files_walk_free(&end->walk);
	if (files_walk_new(end->again, ".", "", false, true, &end->walk) != 0)
		return -ENOMEM;
	end->walked = end->again;
	end->again = -1;
	return files_walk_next(end->walk, found);
}

TEST(a_name_that_comes_twice_is_copied_twice)
{
	struct copy copy = {.twice = true};
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {5, 5}};

	write_text("a/f", "1");
	write_text("b/f", "other");
	utimensat(AT_FDCWD, "b/f", times, 0);
	copy_well(&copy, "a", "b");
	assert_same("a/f", "b/f");
	assert_int_equal(copy.sender.report.failed, 0);
}

static int stay_alive(void *arg)
{
	return 0;
}

TEST(a_quota_stops_a_file_and_counts_what_is_there)
{
	struct copy copy = {.options.quota = 300000};
	int root;

	write_random("a/1-fits", 100000, 1);
	write_random("b/old", 120000, 2);
	write_random("a/too-much", 200000, 3);
	root = open("b", O_RDONLY | O_DIRECTORY);
	assert_int_equal(files_account_open(root, 0, stay_alive, NULL, &copy.options.account), 0);
	copy_well(&copy, "a", "b");
	files_account_close(&copy.options.account);
	close(root);
	assert_int_equal(copy.sender.report.failed, 1);
	assert_text_says(copy.text, "too-much: the quota of the folder is used up");
	assert_same("a/1-fits", "b/1-fits");
	assert_int_not_equal(access("b/too-much", F_OK), 0);
}

TEST(a_folder_that_is_there_takes_no_room)
{
	struct copy copy = {.options.quota = 1};
	int root;

	write_text("a/d/e", "");
	mkdir("b", 0755);
	assert_int_equal(system("cp -a a/d b/"), 0);
	root = open("b", O_RDONLY | O_DIRECTORY);
	assert_int_equal(files_account_open(root, 0, stay_alive, NULL, &copy.options.account), 0);
	copy_well(&copy, "a", "b");
	files_account_close(&copy.options.account);
	close(root);
	assert_int_equal(copy.sender.report.failed, 0);
	assert_int_equal(copy.sender.report.unchanged, 1);
}

static bool expects_good(void *arg, const struct files_bytes *path)
{
	return path->length >= 4 && memcmp(path->at, "good", 4) == 0;
}

TEST(an_entry_that_nobody_asked_for_ends_the_copy)
{
	struct copy copy = {.options.expects = expects_good};

	write_text("a/evil", "x");
	assert_int_not_equal(run_copy(&copy, "a", "b"), 0);
	assert_int_equal(copy.receiver.ret, -EPROTO);
	assert_int_not_equal(access("b/evil", F_OK), 0);
}

static void set_time(const char *path, time_t seconds)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {seconds, 0}};

	assert_int_equal(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), 0);
}

/* In the target there is one of each, and a partial file that a killed copy left. */
static void small_files_meet_what_is_there(void)
{
	struct copy copy = {.then = "a"};
	char partial[FILES_PARTIAL_SIZE], path[128];
	const struct files_bytes name = {(const uint8_t *)"left", 4};

	assert_int_equal(system("rm -rf a b first outside"), 0);
	make_many("first");
	write_text("a/new", "new");
	write_text("a/empty", "");
	write_text("a/other", "new");
	write_text("a/same", "same");
	write_text("a/folder", "a file");
	write_text("a/link", "new");
	write_text("a/fifo", "new");
	write_text("a/left", "new");
	set_time("a/same", 5);
	write_text("b/other", "an older one");
	write_text("b/same", "SAME");
	set_time("b/same", 5);
	write_text("b/folder/x", "x");
	write_text("outside", "old");
	assert_int_equal(symlink("../outside", "b/link"), 0);
	assert_int_equal(mkfifo("b/fifo", 0600), 0);
	files_partial_name(&name, partial);
	snprintf(path, sizeof path, "b/%s", partial);
	write_text(path, "lef");
	copy_well(&copy, "first", "b");
	assert_int_equal(copy.sender.report.unchanged, 1);
	assert_int_equal(copy.receiver.report.unchanged, 1);
	assert_int_equal(copy.sender.report.failed, 1);
	assert_int_equal(copy.sender.report.files, 207);
	assert_text_says(copy.text, "folder: a folder of this name is there");
	for (const char *const *file = (const char *const[]){"new", "empty", "other", "link", "fifo", "left", NULL}; *file; file++) {
		char from[32], to[32];

		snprintf(from, sizeof from, "a/%s", *file);
		snprintf(to, sizeof to, "b/%s", *file);
		assert_same(from, to);
	}
	assert_int_equal(system("test ! -L b/link && test ! -p b/fifo && grep -q old outside && grep -q SAME b/same"), 0);
	assert_int_equal(system("diff -r first/many b/many && test -z \"$(find b -name '.securdma*')\""), 0);
}

TEST(small_files_replace_what_is_there_and_nothing_else)
{
	for (int i = 0; i < 4; i++) {
		is_on_disk = i & 1;
		links_nothing = i & 2;
		small_files_meet_what_is_there();
	}
	is_on_disk = links_nothing = false;
}

TEST(after_files_that_are_there_the_sender_asks_again)
{
	struct copy copy = {.then = "a"};
	char path[64], text[4001] = "";

	make_many("first");
	memset(text, 'x', sizeof text - 1);
	for (int i = 0; i < 1000; i++) {
		snprintf(path, sizeof path, "a/more/%d", i);
		write_text(path, text);
	}
	assert_int_equal(system("mkdir b && cp -a a/more b/"), 0);
	copy_well(&copy, "first", "b");
	assert_int_equal(copy.sender.report.unchanged, 1000);
	assert_int_equal(copy.receiver.report.unchanged, 1000);
	/* What was under way before the first answer, and no more. */
	assert_true(copy.sender.report.bytes < 3500000);
	assert_int_equal(copy.sender.report.bytes + copy.sender.report.bytes_kept, 1000 * 4000 + 200 * strlen("one of many"));
}

TEST(a_small_file_beyond_the_quota_is_refused_and_unchanged_ones_cost_nothing)
{
	struct copy copy = {.then = "a", .options.quota = 2000000};
	int root;

	make_many("first");
	write_text("a/x", "x");
	write_random("a/y", 60000, 1);
	mkdir("b", 0755);
	root = open("b", O_RDONLY | O_DIRECTORY);
	assert_int_equal(files_account_open(root, 0, stay_alive, NULL, &copy.options.account), 0);
	for (int i = 0; i < 3; i++) {
		copy = (struct copy){.then = "a", .options = copy.options};
		copy_well(&copy, "first", "b");
		assert_int_equal(copy.sender.report.failed, 0);
	}
	files_account_take(copy.options.account, UINT64_MAX, 2000000);
	write_random("a/z", 60000, 2);
	copy = (struct copy){.then = "a", .options = copy.options};
	copy_well(&copy, "first", "b");
	files_account_close(&copy.options.account);
	close(root);
	assert_text_says(copy.text, "z: the quota of the folder is used up");
	assert_int_not_equal(access("b/z", F_OK), 0);
}

TEST(a_copy_over_what_has_checksums_of_its_own_needs_none)
{
	struct copy copy = {.is_sealed = true};

	make_many("a");
	write_random("a/large", 3000001, 5);
	copy_well(&copy, "a", "b");
	assert_int_equal(system("diff -r a b"), 0);
}

/* In memory if possible: each copy waits for its disk, which others may keep busy. */
static int enter_memory(void **state)
{
	strcpy(folder_path, "/dev/shm/securdma-test-XXXXXX");
	return mkdtemp(folder_path) && chdir(folder_path) == 0 ? 0 : enter_folder(state);
}

RUN_TESTS_EACH(enter_memory, leave_folder)
