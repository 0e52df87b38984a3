/* SPDX-License-Identifier: Apache-2.0 */
/* `securdma cp`: what was asked for, and the connection that does it. */
#ifndef CLI_CP_H
#define CLI_CP_H

#include "cli.h"
#include "files/list.h"
#include "files/report.h"
#include "pace.h"
#include "progress.h"
#include "settings.h"

struct cp {
	bool recursive, quiet, no_sync, checksum, deletes, dry_run;
	struct option_list exclude; /* as they were given */
	int64_t limit_rate;         /* bytes per second; 0: none */
	char *progress_form; /* auto, bar, plain or none */
	struct settings settings;

	bool fetch;          /* from the server */
	struct files_list list; /* paths of this process's own, or, when it fetches, of the server's */
	struct files_excludes excludes;
	struct pace pace;
	const char *target;  /* a folder of the server's, or of this process's own */

	struct files_report report;
	struct progress progress;
	json_t *errors;      /* with --json: the first entries that were not copied */
	json_t *changes;     /* with --json, in a dry run: what would be done */
	char seal[32];
	int64_t started, ended;
	int error;           /* that ended the copy; 0 */
	char error_text[768];
};

/* cp_transfer.c: connects and copies. What fails is said. Returns an exit code. */
int cp_transfer(struct cp *cp);

#endif
