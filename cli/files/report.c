/* SPDX-License-Identifier: Apache-2.0 */
#include "report.h"

#include <errno.h>
#include <string.h>

struct files_bytes files_text(const char *text)
{
	return (struct files_bytes){(const uint8_t *)text, strlen(text)};
}

void files_report_count(struct files_report *report, unsigned kind, int by)
{
	uint64_t *count = kind == FILES_REGULAR ? &report->files : kind == FILES_FOLDER ? &report->folders : kind == FILES_LINK ? &report->links : NULL;

	if (count)
		*count += (uint64_t)(int64_t)by;
}

void files_report_entry(struct files_report *report, enum files_result result, const struct files_bytes *name, const struct files_bytes *text)
{
	if (result == FILES_FAILED)
		report->failed++;
	else if (result == FILES_LEFT_OUT)
		report->left_out++;
	if (report->entry)
		report->entry(report->arg, result, name, text);
}

void files_report_removed(struct files_report *report, const struct files_bytes *name)
{
	report->deleted++;
	if (report->removed)
		report->removed(report->arg, name);
}

void files_report_moved(struct files_report *report, uint64_t sent, uint64_t kept)
{
	report->bytes += sent;
	report->bytes_kept += kept;
	if (report->moved)
		report->moved(report->arg);
}

int files_report_failure(struct files_report *report, const struct files_bytes *text)
{
	size_t length = text->length < sizeof report->failure - 1 ? text->length : sizeof report->failure - 1;

	for (size_t i = 0; i < length; i++)
		report->failure[i] = text->at[i] >= ' ' && text->at[i] < 0x7f ? (char)text->at[i] : '?';
	report->failure[length] = '\0';
	return -ECONNABORTED;
}
