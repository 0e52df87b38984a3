/* SPDX-License-Identifier: Apache-2.0 */
/* Prints why set-ups failed. The library may know more reasons than the header. */
#include <securdma_server.h>
#include <stdio.h>

int print_failures(struct srdma_server *server)
{
	struct srdma_server_metrics *metrics;
	int ret = srdma_server_get_metrics(server, &metrics);

	if (ret != 0)
		return ret;
	for (size_t i = 0; i < metrics->failed_count; i++) {
		const char *name = srdma_setup_failure_name((enum srdma_setup_failure)i);

		printf("%s %llu\n", name ? name : "other", (unsigned long long)metrics->failed[i]);
	}
	srdma_server_metrics_free(&metrics);
	return 0;
}
