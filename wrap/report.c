/* SPDX-License-Identifier: Apache-2.0 */
#include "report.h"

#include "setting.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

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
	if (fd >= 0) {
		ssize_t written = write(fd, record, sizeof *record);

		(void)written; /* the reader leaves out what is not whole */
		close(fd);
	}
	errno = saved;
}
