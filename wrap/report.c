/* SPDX-License-Identifier: Apache-2.0 */
#include "report.h"

#include "message.h"
#include "setting.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The file is the command's own: only its user's processes can open it, where they see it. */
static void say_missing(void)
{
	static atomic_flag said = ATOMIC_FLAG_INIT;

	if (!atomic_flag_test_and_set(&said))
		message("the report lacks what process %d (%s) does, which has another user, root or PID namespace than the command: %s", (int)getpid(),
			program_invocation_short_name, strerror(errno));
}

void report_append(struct report_record *record)
{
	const char *path = setting()->report;
	int saved = errno, fd;

	if (!path[0])
		return;
	record->magic = REPORT_MAGIC;
	record->pid = (int32_t)getpid();
	snprintf(record->program, sizeof record->program, "%.15s", program_invocation_short_name);
	/* Opened each time: a program may close all descriptors, or end at any moment. */
	fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (fd < 0)
		say_missing();
	if (fd >= 0) {
		ssize_t written = write(fd, record, sizeof *record);

		(void)written; /* the reader leaves out what is not whole */
		close(fd);
	}
	errno = saved;
}
