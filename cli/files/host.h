/* SPDX-License-Identifier: Apache-2.0 */
/* A server's end of one copy: what the client asks for, whether it may, and the copy itself. It runs in a thread of its own. */
#ifndef FILES_HOST_H
#define FILES_HOST_H

#include "channel.h"
#include "report.h"

#define FILES_MAY_READ   1u
#define FILES_MAY_WRITE  2u
#define FILES_MAY_DELETE 4u

/* What a client may copy from and to. */
struct files_area {
	char *folder;
	unsigned rights;
	uint64_t quota; /* bytes below the folder; 0: no limit */
	int timeout_ms; /* without a sign of life */
	unsigned partial_days; /* until a partial file is given up; 0: never */
};

/* What became of it. */
struct files_host_result {
	unsigned operation; /* enum files_operation; 0: the client said none */
	char path[FILES_NAME_MAX + 1];
	char reason[256];   /* why it failed; "" */
};

/* Serves the client until the copy is over. Returns 0, or what ended the copy, which the client was told if possible. */
int files_host_run(const struct files_transport *transport, const uint8_t key[FILES_KEY_SIZE], const struct files_area *area,
		   struct files_report *report, struct files_host_result *result);

#endif
