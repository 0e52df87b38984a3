/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a server's limits make sense, and fit the device, the process and the machine. */
#ifndef SRDMA_SERVER_LIMITS_H
#define SRDMA_SERVER_LIMITS_H

#include "verdict.h"

#include "securdma_server.h"

/* A program's limits in the form of this library; the list of identities stays the program's. Errors: -EINVAL. */
int srdma_limits_complete(const struct srdma_server_limits *given, struct srdma_server_limits *out);
/* Besides the authenticated clients in set-up, as many others can be in set-up: clients that are not yet authenticated, and clients that
 * the server is turning away. */
uint64_t srdma_limits_most_pending(const struct srdma_server_limits *limits);

/* Makes the checks that need neither device nor machine. */
int srdma_limits_check_numbers(const struct srdma_server_limits *limits);
/* Judges limits that make sense in themselves and reports every finding; without a device (NULL) it leaves out the checks that
 * depend on one. Returns 0, or the error of the first failure. */
int srdma_limits_check(const struct srdma_server_limits *limits, const struct srdma_server_options *options, const struct srdma_device *device,
		       struct srdma_bench *bench);
/* Checks limits, and copies them; srdma_limits_free frees the copy. The options tell what else the server needs. `starting`: warns if
 * less memory is available now than the limits allow. Errors: as srdma_server_set_limits. */
int srdma_limits_take(const struct srdma_server_limits *limits, const struct srdma_server_options *options,
		      const struct srdma_device *device, bool starting, struct srdma_server_limits *out);
void srdma_limits_free(struct srdma_server_limits *limits);

#endif
