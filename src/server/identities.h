/* SPDX-License-Identifier: Apache-2.0 */
/* A client's rights, by the names in its certificate: the list of names, and what it and the other limits say of one client. No
 * state, no locks. */
#ifndef SRDMA_IDENTITIES_H
#define SRDMA_IDENTITIES_H

#include "peer_names.h"

#include "securdma_server.h"

/* Checks a list, and makes an own copy of it that is sorted by name. Errors: -EINVAL with the name; -ENOMEM. */
int srdma_identities_copy(const struct srdma_identity *identities, size_t count, struct srdma_identity **out);
void srdma_identities_free(struct srdma_identity **identities, size_t count);
/* In such a copy; NULL: not listed. */
const struct srdma_identity *srdma_identities_find(const struct srdma_identity *identities, size_t count, const char *name);

/* What the limits say of one client. */
struct srdma_policy {
	const char *refused; /* "denied", "unlisted"; NULL: it may come */
	unsigned max_same_name, max_same_address; /* 0: as many as there is room for */
	int64_t region_size;   /* -1: the server's */
	int region_access;     /* -1: the server's */
	uint32_t message_size; /* 0: the server's */
	uint64_t max_bytes_per_second; /* 0: the server's */
};

/* limits->identities is sorted. */
void srdma_policy_find(const struct srdma_server_limits *limits, const struct srdma_peer_names *names, struct srdma_policy *out);
/* A sentence for a client that is refused. */
const char *srdma_policy_text(const struct srdma_policy *policy);
void srdma_policy_apply(const struct srdma_policy *policy, struct srdma_conn_options *options);

/* Bytes of rings and regions of as many clients as may be there, in the worst case, at most UINT64_MAX; *largest: of one.
 * limits->identities is sorted. Errors: -ENOMEM. */
int srdma_policy_memory(const struct srdma_server_limits *limits, const struct srdma_conn_options *conn, uint64_t *sum,
			uint64_t *largest);

#endif
