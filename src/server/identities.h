/* SPDX-License-Identifier: Apache-2.0 */
/* A client's rights, by the names in its certificate: the list of identities, and the limits that it and the other settings give
 * one client. No state, no locks. */
#ifndef SRDMA_IDENTITIES_H
#define SRDMA_IDENTITIES_H

#include "peer_names.h"

#include "securdma_server.h"

/* Checks a list, and copies it, sorted by name. Errors: -EINVAL, with the name in the text; -ENOMEM. */
int srdma_identities_copy(const struct srdma_identity *identities, size_t count, struct srdma_identity **out);
void srdma_identities_free(struct srdma_identity **identities, size_t count);
/* Finds a name in such a copy; NULL: not listed. */
const struct srdma_identity *srdma_identities_find(const struct srdma_identity *identities, size_t count, const char *name);

/* The limits of one client. */
struct srdma_policy {
	const char *refused; /* "denied", "unlisted"; NULL: the client may connect */
	unsigned max_same_name, max_same_address; /* 0: no limit */
	int64_t region_size;   /* -1: the server's */
	int region_access;     /* -1: the server's */
	uint32_t message_size; /* 0: the server's */
	uint64_t max_bytes_per_second; /* 0: the server's */
};

/* limits->identities is sorted. */
void srdma_policy_find(const struct srdma_server_limits *limits, const struct srdma_peer_names *names, struct srdma_policy *out);
/* The reason that a refused client gets. */
const char *srdma_policy_text(const struct srdma_policy *policy);
void srdma_policy_apply(const struct srdma_policy *policy, struct srdma_conn_options *options);

/* Bytes of the rings, regions and seal lanes of the most clients allowed, in the worst case, at most UINT64_MAX; *largest: of one client.
 * limits->identities is sorted. Errors: -ENOMEM. */
int srdma_policy_memory(const struct srdma_server_limits *limits, const struct srdma_conn_options *conn, uint64_t *sum, uint64_t *largest);

#endif
