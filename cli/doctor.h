/* SPDX-License-Identifier: Apache-2.0 */
/* Findings of `securdma doctor`, and the checks that make them. */
#ifndef CLI_DOCTOR_H
#define CLI_DOCTOR_H

#include "cli.h"
#include "settings.h"

enum finding { FINDING_OK, FINDING_WARN, FINDING_FAIL };

struct doctor {
	struct settings *settings;
	json_t *findings; /* with --json; else NULL */
	unsigned counts[3];
	bool usable_device;
	struct srdma_device *device; /* the one that serve and connect would take; NULL: none */
};

/* Reports one finding: what was looked at, what was found, and what to do about it, a command if there is one (NULL: nothing). */
void doctor_find(struct doctor *doctor, enum finding finding, const char *what, const char *fix, const char *format,
		 ...) __attribute__((format(printf, 5, 6)));

/* In the order in which a server comes to them: it reads its key, becomes its user, and opens the device as that user. */
void doctor_check_certificates(struct doctor *doctor);
void doctor_become_user(struct doctor *doctor);
void doctor_check_devices(struct doctor *doctor);
void doctor_check_gids(struct doctor *doctor);
void doctor_check_limits(struct doctor *doctor);
void doctor_check_port(struct doctor *doctor);
void doctor_check_random(struct doctor *doctor);

/* Instead of these: whether the path to the address `peer` is encrypted, from the address `own` (NULL: the one that the kernel would
 * choose). Returns an exit code other than 0 if one of them is no address. */
int doctor_check_encryption(struct doctor *doctor, const char *peer, const char *own);

#endif
