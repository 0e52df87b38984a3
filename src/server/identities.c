/* SPDX-License-Identifier: Apache-2.0 */
#include "identities.h"

#include "sealed_ring.h"
#include "cert.h"
#include "queues.h"
#include "frames.h"
#include "log.h"
#include "sized.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define ALL_RIGHTS (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ)

SRDMA_DEFAULTS(srdma_identity, .region_size = -1, .region_access = -1)

int srdma_identity_check_name(const char *name)
{
	return srdma_peer_names_check(name);
}

static int check(const struct srdma_identity *i)
{
	int ret = srdma_peer_names_check(i->name);

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

/* Copies a name; a pin, which may be in either case, is copied in lower case. */
static char *copy_name(const char *name)
{
	unsigned char pin[SRDMA_PIN_SIZE];
	char text[SRDMA_PIN_TEXT_SIZE];

	if (strncasecmp(name, "sha256:", 7) != 0 || srdma_pin_parse(name, pin) != 0)
		return strdup(name);
	srdma_pin_format(pin, text);
	return strdup(text);
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

static int copy_identity(const struct srdma_identity *given, struct srdma_identity *out)
{
	struct srdma_identity own;
	int ret = SRDMA_SIZED_TAKE(srdma_identity, max_bytes_per_second, given, &own);

	if (ret == 0)
		ret = check(&own);
	if (ret != 0)
		return ret;
	own.name = copy_name(own.name);
	if (!own.name)
		return srdma_fail(-ENOMEM, "out of memory");
	*out = own;
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
	for (size_t i = 0; ret == 0 && i < count; i++)
		ret = copy_identity(srdma_sized_element(identities, i), &copy[i]);
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

static bool is_denied(const struct srdma_server_limits *limits, const char *name)
{
	const struct srdma_identity *identity = srdma_identities_find(limits->identities, limits->identity_count, name);

	return identity && identity->denied;
}

/* A denied name counts even if the certificate also has other names. */
static bool bears_denied(const struct srdma_server_limits *limits, const struct srdma_peer_names *names)
{
	if (is_denied(limits, names->identity) || is_denied(limits, names->pin))
		return true;
	for (size_t i = 0; i < names->count; i++)
		if (is_denied(limits, names->list[i].text))
			return true;
	return false;
}

void srdma_policy_find(const struct srdma_server_limits *limits, const struct srdma_peer_names *names, struct srdma_policy *out)
{
	const struct srdma_identity *identity = srdma_identities_find(limits->identities, limits->identity_count, names->identity);

	*out = (struct srdma_policy){
		.max_same_name = limits->max_clients_per_identity,
		.max_same_address = limits->max_clients_per_address,
		.region_size = -1,
		.region_access = -1,
	};
	if (bears_denied(limits, names))
		out->refused = "denied";
	else if (limits->only_listed_identities && !identity)
		out->refused = "unlisted";
	if (!identity)
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

/* The most clients that can have one identity, and the bytes of each. */
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
	const struct srdma_queues_shape shape = {.message_size = conn->message_size, .depth = conn->depth, .rdma_depth = conn->rdma_depth, .sealed = sealed};
	uint64_t bytes = saturated_add(in_pages(srdma_queues_ring_size(&shape)), in_pages(conn->region_size));

	if (sealed && conn->seal_threads > 0)
		bytes = saturated_add(bytes, SRDMA_SEAL_LANES * (uint64_t)srdma_seal_lane_memory(conn->seal_threads));
	/* A client that both writes to the region and reads it needs both rings. */
	return sealed && conn->region_size > 0 ? saturated_add(bytes, 2 * in_pages(SRDMA_SEALED_RING)) : bytes;
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
		struct srdma_peer_names names = {.identity = ""};
		struct srdma_policy policy;

		if (identity->denied)
			continue;
		snprintf(names.identity, sizeof names.identity, "%s", identity->name);
		srdma_policy_find(limits, &names, &policy);
		srdma_policy_apply(&policy, &own);
		shares[count++] = (struct share){bytes_of_one(&own), policy.max_same_name ? policy.max_same_name : UINT32_MAX};
	}
	/* All clients with an unlisted name. */
	if (!limits->only_listed_identities)
		shares[count++] = (struct share){bytes_of_one(conn), UINT32_MAX};
	return count;
}

int srdma_policy_memory(const struct srdma_server_limits *limits, const struct srdma_conn_options *conn, uint64_t *sum, uint64_t *largest)
{
	struct share *shares = calloc(limits->identity_count + 1, sizeof *shares);
	unsigned left = limits->max_clients;
	size_t count;

	if (!shares)
		return srdma_fail(-ENOMEM, "out of memory");
	*sum = *largest = 0;
	count = list_shares(limits, conn, shares);
	/* In the worst case the identities that need most memory take the places. */
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
