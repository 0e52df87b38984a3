/* SPDX-License-Identifier: Apache-2.0 */
#include "identity.h"

#include "bulk_ring.h"
#include "channel.h"
#include "hello.h"
#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ALL_RIGHTS (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ)

void srdma_identity_init(struct srdma_identity *identity)
{
	*identity = (struct srdma_identity){.region_size = -1, .region_access = -1};
}

/* ---- the list -------------------------------------------------------------------------------------------------- */

/* Only what srdma_tls_peer_name can call exact: another name would never match. */
static int check_name(const char *name)
{
	size_t length = name ? strnlen(name, SRDMA_NAME_SIZE) : 0;

	if (length == 0)
		return srdma_fail(-EINVAL, "an identity needs a name; clients without a certificate cannot be listed");
	if (length == SRDMA_NAME_SIZE)
		return srdma_fail(-EINVAL, "the name of the identity %.40s... is too long; at most %d characters are allowed", name, SRDMA_NAME_SIZE - 1);
	for (const char *c = name; *c; c++)
		if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f)
			return srdma_fail(-EINVAL, "the identity '%s' has characters other than printable ASCII", name);
	return 0;
}

static int check(const struct srdma_identity *i)
{
	int ret = check_name(i->name);

	if (ret != 0)
		return ret;
	if (i->region_size < -1)
		return srdma_fail(-EINVAL, "the identity '%s': a region cannot have %lld bytes", i->name, (long long)i->region_size);
	if (i->region_access < -1 || (i->region_access >= 0 && (i->region_access & ~ALL_RIGHTS)))
		return srdma_fail(-EINVAL, "the identity '%s': region access 0x%x is more than remote write and remote read", i->name,
				  (unsigned)i->region_access);
	if (i->message_size != 0 && (i->message_size < SRDMA_MESSAGE_SIZE_MIN || i->message_size > SRDMA_MESSAGE_SIZE_MAX))
		return srdma_fail(-EINVAL, "the identity '%s': message-size %u is out of range; give %u to %u", i->name, i->message_size,
				  SRDMA_MESSAGE_SIZE_MIN, SRDMA_MESSAGE_SIZE_MAX);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	const struct srdma_identity *x = a, *y = b;

	return strcmp(x->name, y->name);
}

void srdma_identities_free(struct srdma_identity **out, size_t count)
{
	struct srdma_identity *identities = *out;

	*out = NULL;
	for (size_t i = 0; identities && i < count; i++)
		free((char *)(uintptr_t)identities[i].name);
	free(identities);
}

static int check_unique(const struct srdma_identity *sorted, size_t count)
{
	for (size_t i = 1; i < count; i++)
		if (strcmp(sorted[i - 1].name, sorted[i].name) == 0)
			return srdma_fail(-EINVAL, "the identity '%s' is listed twice", sorted[i].name);
	return 0;
}

int srdma_identities_copy(const struct srdma_identity *identities, size_t count, struct srdma_identity **out)
{
	struct srdma_identity *copy;
	int ret = 0;

	if (count > 0 && !identities)
		return srdma_fail(-EINVAL, "identity_count is %zu, and identities is NULL", count);
	copy = calloc(count + 1, sizeof *copy);
	if (!copy)
		return srdma_fail(-ENOMEM, "out of memory");
	for (size_t i = 0; ret == 0 && i < count; i++) {
		ret = check(&identities[i]);
		if (ret != 0)
			break;
		copy[i] = identities[i];
		copy[i].name = strdup(identities[i].name);
		if (!copy[i].name)
			ret = srdma_fail(-ENOMEM, "out of memory");
	}
	if (ret == 0) {
		qsort(copy, count, sizeof *copy, by_name);
		ret = check_unique(copy, count);
	}
	if (ret != 0) {
		srdma_identities_free(&copy, count);
		return ret;
	}
	*out = copy;
	return 0;
}

const struct srdma_identity *srdma_identities_find(const struct srdma_identity *identities, size_t count, const char *name)
{
	struct srdma_identity key = {.name = name};

	return count == 0 ? NULL : bsearch(&key, identities, count, sizeof *identities, by_name);
}

/* ---- one client ------------------------------------------------------------------------------------------------ */

void srdma_policy_find(const struct srdma_server_limits *limits, const char *name, bool exact, struct srdma_policy *out)
{
	const struct srdma_identity *identity = srdma_identities_find(limits->identities, limits->identity_count, name);

	*out = (struct srdma_policy){
		.max_same_name = limits->max_clients_per_identity,
		.max_same_address = limits->max_clients_per_address,
		.region_size = -1,
		.region_access = -1,
	};
	/* One that looks like a name that is denied gets nothing by that; one that looks like another gets nothing either. */
	if (identity && identity->denied)
		out->refused = "denied";
	else if (limits->only_listed_identities && !(identity && exact))
		out->refused = "unlisted";
	if (!identity || !exact)
		return;
	if (identity->max_clients != 0)
		out->max_same_name = identity->max_clients;
	out->region_size = identity->region_size;
	out->region_access = identity->region_access;
	out->message_size = identity->message_size;
	out->max_bytes_per_second = identity->max_bytes_per_second;
}

const char *srdma_policy_text(const struct srdma_policy *policy)
{
	return policy->refused && strcmp(policy->refused, "denied") == 0
		       ? "the server denies this certificate's name"
		       : "the server serves listed names only, and this name is not listed";
}

void srdma_policy_apply(const struct srdma_policy *policy, struct srdma_conn_options *options)
{
	if (policy->region_size >= 0)
		options->region_size = (size_t)policy->region_size;
	if (policy->region_access >= 0)
		options->region_access = (unsigned)policy->region_access;
	if (policy->message_size != 0)
		options->message_size = policy->message_size;
	if (policy->max_bytes_per_second != 0)
		options->max_bytes_per_second = policy->max_bytes_per_second;
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

/* So many clients, at most, of so many bytes each. */
struct share {
	uint64_t bytes;
	unsigned clients;
};

static uint64_t saturated_add(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t in_pages(uint64_t bytes)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), rest = bytes % page;

	return rest == 0 ? bytes : saturated_add(bytes, page - rest);
}

static uint64_t bytes_of_one(const struct srdma_conn_options *conn)
{
	bool sealed = conn->seal == SRDMA_SEAL_REQUIRED;
	const struct srdma_channel_shape shape = {conn->message_size, conn->depth, conn->rdma_depth, sealed};
	uint64_t bytes = saturated_add(in_pages(srdma_channel_ring_size(&shape)), in_pages(conn->region_size));

	/* Who writes to the region and reads it has both rings made. */
	return sealed && conn->region_size > 0 ? saturated_add(bytes, 2 * in_pages(SRDMA_BULK_RING)) : bytes;
}

static int by_bytes_falling(const void *a, const void *b)
{
	const struct share *x = a, *y = b;

	return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

static size_t list_shares(const struct srdma_server_limits *limits, const struct srdma_conn_options *conn, struct share *shares)
{
	size_t count = 0;

	for (size_t i = 0; i < limits->identity_count; i++) {
		const struct srdma_identity *identity = &limits->identities[i];
		struct srdma_conn_options own = *conn;
		struct srdma_policy policy;

		if (identity->denied)
			continue;
		srdma_policy_find(limits, identity->name, true, &policy);
		srdma_policy_apply(&policy, &own);
		shares[count++] = (struct share){bytes_of_one(&own), policy.max_same_name ? policy.max_same_name : UINT32_MAX};
	}
	/* All others, of whatever name. */
	if (!limits->only_listed_identities)
		shares[count++] = (struct share){bytes_of_one(conn), UINT32_MAX};
	return count;
}

int srdma_policy_memory(const struct srdma_server_limits *limits, const struct srdma_conn_options *conn, uint64_t *sum,
			uint64_t *largest)
{
	struct share *shares = calloc(limits->identity_count + 1, sizeof *shares);
	unsigned left = limits->max_clients;
	size_t count;

	if (!shares)
		return srdma_fail(-ENOMEM, "out of memory");
	*sum = *largest = 0;
	count = list_shares(limits, conn, shares);
	/* The worst that can happen: those who take most come first. */
	qsort(shares, count, sizeof *shares, by_bytes_falling);
	if (count > 0)
		*largest = shares[0].bytes;
	for (size_t i = 0; i < count && left > 0; i++) {
		unsigned clients = shares[i].clients < left ? shares[i].clients : left;
		uint64_t bytes;

		if (__builtin_mul_overflow(shares[i].bytes, (uint64_t)clients, &bytes))
			bytes = UINT64_MAX;
		*sum = saturated_add(*sum, bytes);
		left -= clients;
	}
	free(shares);
	return 0;
}
