/* SPDX-License-Identifier: Apache-2.0 */
/* Findings of `securdma doctor`, and the checks that make them. */
#ifndef CLI_DOCTOR_H
#define CLI_DOCTOR_H

#include "cli.h"
#include "settings.h"

enum finding { FINDING_OK, FINDING_WARN, FINDING_FAIL };

struct doctor {
	const struct settings *settings;
	json_t *findings; /* with --json; else NULL */
	unsigned counts[3];
	bool usable_device;
};

/* Reports one finding: what was looked at, what was found, and the command that mends it (NULL: none needed). */
void doctor_find(struct doctor *doctor, enum finding finding, const char *what, const char *mend, const char *format,
		 ...) __attribute__((format(printf, 5, 6)));

void doctor_check_devices(struct doctor *doctor);
void doctor_check_gids(struct doctor *doctor);
void doctor_check_memlock(struct doctor *doctor);
void doctor_check_certificates(struct doctor *doctor);
void doctor_check_port(struct doctor *doctor);
void doctor_check_random(struct doctor *doctor);
void doctor_check_user(struct doctor *doctor);

#endif
