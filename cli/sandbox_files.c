/* SPDX-License-Identifier: Apache-2.0 */
/* Where a server that offers files may write: below the folders that it offers, and where itself and its device put things. Landlock of
 * Linux 5.13 and later limits that; a filter of system calls cannot, since it does not see paths. */
#include "cli.h"
#include "control_client.h"
#include "landlock.h"
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* As in linux/landlock.h, which may be older than the kernel. */
#define RULE_PATH_BENEATH  1
#define WRITE_FILE         (1ull << 1)
#define REMOVE_FOLDER      (1ull << 4)
#define REMOVE_FILE        (1ull << 5)
#define MAKE_DIR           (1ull << 7)
#define MAKE_REG           (1ull << 8)
#define MAKE_SYM           (1ull << 12)
#define TRUNCATE           (1ull << 14)
#define ALL_WRITES         0x1ff2ull /* and the other things that are made or removed */
#define FOLDER_TO_FOLDER   (1ull << 13)
#define DEVICES            (1ull << 6 | 1ull << 11)
#define VERSION_WITH_REFER 2
#define VERSION_WITH_TRUNCATE 3

#define SHARED_MEMORY "/dev/shm"

struct path_rule {
	uint64_t access;
	int32_t folder;
} __attribute__((packed));

static int allow(int rules, const char *folder, uint64_t access)
{
	struct path_rule rule = {.access = access};
	int fd = open(folder, O_PATH | O_CLOEXEC), ret = 0;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	rule.folder = fd;
	if (syscall(LANDLOCK_ADD_RULE, rules, RULE_PATH_BENEATH, &rule, 0) != 0)
		ret = -errno;
	close(fd);
	return ret;
}

static int allow_folders(int rules, const struct settings *settings, uint64_t handled)
{
	const uint64_t files = handled & (WRITE_FILE | REMOVE_FOLDER | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SYM | TRUNCATE);
	int ret = settings->files_directory ? allow(rules, settings->files_directory, files) : 0;

	for (size_t i = 0; i < settings->identities.count && ret == 0; i++)
		if (settings->identities.items[i].files_directory)
			ret = allow(rules, settings->identities.items[i].files_directory, files);
	return ret;
}

/* The control socket, and what verbs' drivers need. */
static int allow_own(int rules, const struct settings *settings, uint64_t rights)
{
	char *control = control_path_of_server(settings), *slash = control ? strrchr(control, '/') : NULL;
	int ret = allow(rules, "/dev", rights);

	if (slash)
		*(slash == control ? slash + 1 : slash) = '\0';
	/* Where a device in user space puts its files otherwise. */
	if (ret == 0 && access(SHARED_MEMORY, W_OK) != 0)
		ret = allow(rules, "/tmp", rights);
	if (ret == 0 && control)
		ret = allow(rules, slash ? control : ".", rights);
	free(control);
	return ret;
}

int sandbox_limit_files(const struct settings *settings)
{
	long version = landlock_version();
	uint64_t handled = ALL_WRITES;
	int rules, ret;

	if (version < 1) {
		cli_log(SRDMA_LOG_DEBUG, "the kernel cannot limit where the server writes (Landlock of Linux 5.13)");
		return 0;
	}
	handled |= version >= VERSION_WITH_REFER ? FOLDER_TO_FOLDER : 0;
	handled |= version >= VERSION_WITH_TRUNCATE ? TRUNCATE : 0;
	rules = (int)syscall(LANDLOCK_CREATE_RULESET, &handled, sizeof handled, 0);
	if (rules < 0)
		return -errno;
	ret = allow_folders(rules, settings, handled);
	if (ret == 0)
		ret = allow_own(rules, settings, handled & ~DEVICES);
	return landlock_enforce(rules, ret);
}
