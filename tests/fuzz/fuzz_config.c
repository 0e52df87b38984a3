/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration file. Whatever is in it, it is read to its end; and what is accepted, the library accepts too. */
#include "fuzz.h"

#include "cli.h"
#include "identities.h"
#include "settings.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void check_accepted(struct settings *settings)
{
	struct srdma_server_limits limits;
	struct srdma_conn_options conn;
	struct srdma_qp_options qp;
	struct srdma_identity *copy = NULL;
	uint64_t sum, largest;

	require(settings_server_limits(settings, &limits) == 0);
	require(limits.max_clients >= 1 && limits.max_pending >= 1);
	require(srdma_identities_copy(limits.identities, limits.identity_count, &copy) == 0);
	for (size_t i = 0; i < limits.identity_count; i++) {
		struct srdma_peer_names names = {.identity = ""};
		struct srdma_policy policy;

		/* Each is found under its name, and as it was written. */
		const struct srdma_identity *found = srdma_identities_find(copy, limits.identity_count, limits.identities[i].name);
		require(found != NULL && found->region_size == limits.identities[i].region_size);
		limits.identities = copy;
		snprintf(names.identity, sizeof names.identity, "%s", found->name);
		srdma_policy_find(&limits, &names, &policy);
		require(!policy.refused == !found->denied);
		limits.identities = settings->identities.forms;
	}
	limits.identities = copy;
	settings_conn_options(settings, &conn, &qp);
	require(srdma_policy_memory(&limits, &conn, &sum, &largest) == 0 && sum >= largest);
	srdma_identities_free(&copy, limits.identity_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct settings settings;
	int fd = memfd_create("config", MFD_CLOEXEC);
	char path[32];

	require(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	settings_init(&settings);
	if (settings_read_file(&settings, path) == CLI_EXIT_OK)
		check_accepted(&settings);
	settings_free(&settings);
	close(fd);
	return 0;
}
