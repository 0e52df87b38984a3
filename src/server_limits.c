/* SPDX-License-Identifier: Apache-2.0 */
#include "server_limits.h"

#include "identity.h"
#include "log.h"
#include "machine.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#define FDS_PER_CLIENT 1 /* TLS socket */
#define FDS_PER_WORKER 3 /* epoll, eventfd, completion channel */
#define FDS_BESIDES    64

void srdma_server_limits_init(struct srdma_server_limits *limits)
{
	*limits = (struct srdma_server_limits){.max_clients = 10, .max_pending = 64};
}

uint64_t srdma_limits_most_pending(const struct srdma_server_limits *limits)
{
	return 2ull * limits->max_pending;
}

/* ---- what they need -------------------------------------------------------------------------------------------- */

/* Most clients will never have all of it: a spare queue pair is for the next renewal, staging and landing rings for sealed writes and
 * reads. */
static int check_device(const struct srdma_device *device, unsigned clients, const struct srdma_conn_options *conn)
{
	bool sealed = conn->seal == SRDMA_SEAL_REQUIRED;
	const struct ibv_device_attr *attr = srdma_device_attr(device);
	const struct {
		const char *what;
		unsigned long have, need;
	} limits[] = {
		{"queue pairs", (unsigned long)attr->max_qp, (conn->epoch_ms > 0 ? 2ul : 1ul) * clients},
		{"protection domains", (unsigned long)attr->max_pd, clients},
		{"completion queues", (unsigned long)attr->max_cq, 2ul * clients},
		{"memory regions", (unsigned long)attr->max_mr, (sealed ? 3ul : 2ul) * clients},
	};

	for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
		if (limits[i].need > limits[i].have)
			return srdma_fail(SRDMA_ECONFIG, "max-clients %u needs %lu %s; %s has %lu", clients, limits[i].need,
					  limits[i].what, srdma_device_name(device), limits[i].have);
	return 0;
}

/* What cannot fit is an error: a client would find out, or the kernel would kill the server. What does not fit now may later. */
static int check_memory(const struct srdma_server_limits *limits, const struct srdma_conn_options *conn, bool starting)
{
	struct srdma_machine machine;
	uint64_t need, largest;
	int ret = srdma_policy_memory(limits, conn, &need, &largest);
	const char *most = limits->identity_count > 0 ? "up to " : "";

	if (ret != 0)
		return ret;
	srdma_machine_look("", &machine);
	if (need > machine.memory)
		return srdma_fail(SRDMA_ECONFIG,
				  "max-clients %u at %s%llu KiB each need %llu MiB; the machine, or the control group, has %llu MiB: "
				  "lower max-clients, region-size, depth or message-size",
				  limits->max_clients, most, (unsigned long long)largest >> 10, (unsigned long long)need >> 20,
				  (unsigned long long)machine.memory >> 20);
	if (starting && need > machine.available)
		srdma_log(SRDMA_LOG_WARN,
			  "max-clients %u at %s%llu KiB each need %llu MiB, and %llu MiB are available: the last ones may be turned away",
			  limits->max_clients, most, (unsigned long long)largest >> 10, (unsigned long long)need >> 20,
			  (unsigned long long)machine.available >> 20);
	return 0;
}

/* Last: it changes something, the process's limit. */
static int check_descriptors(const struct srdma_server_limits *limits, int workers)
{
	rlim_t threads = workers < 0 ? limits->max_clients : (rlim_t)workers;
	rlim_t clients = limits->max_clients + (rlim_t)srdma_limits_most_pending(limits);
	rlim_t need = clients * FDS_PER_CLIENT + threads * FDS_PER_WORKER + FDS_BESIDES;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= need)
		return 0;
	if (limit.rlim_max < need)
		return srdma_fail(SRDMA_ECONFIG,
				  "max-clients %u and max-pending %u need %lu file descriptors; the limit is %lu (ulimit -n, "
				  "LimitNOFILE=)",
				  limits->max_clients, limits->max_pending, (unsigned long)need, (unsigned long)limit.rlim_max);
	limit.rlim_cur = need;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		return srdma_fail(SRDMA_ECONFIG, "cannot raise the limit of file descriptors: %s", strerror(errno));
	return 0;
}

/* ---- taking them ----------------------------------------------------------------------------------------------- */

int srdma_limits_take(const struct srdma_server_limits *limits, const struct srdma_server_options *options,
		      const struct srdma_device *device, bool starting, struct srdma_server_limits *out)
{
	struct srdma_server_limits own = *limits;
	struct srdma_identity *identities = NULL;
	int ret;

	if (limits->max_clients == 0 || limits->max_pending == 0)
		return srdma_fail(-EINVAL, "max-clients and max-pending are at least 1");
	ret = srdma_identities_copy(limits->identities, limits->identity_count, &identities);
	own.identities = identities;
	if (ret == 0)
		ret = check_device(device, own.max_clients, &options->conn);
	if (ret == 0)
		ret = check_memory(&own, &options->conn, starting);
	if (ret == 0)
		ret = check_descriptors(&own, options->workers);
	if (ret != 0) {
		srdma_identities_free(&identities, own.identity_count);
		return ret;
	}
	/* No error: who takes the last name out of the list wants it to be out. */
	if (own.only_listed_identities && own.identity_count == 0)
		srdma_log(SRDMA_LOG_WARN, "only listed identities are served, and none is listed: nobody is let in");
	*out = own;
	return 0;
}

void srdma_limits_free(struct srdma_server_limits *limits)
{
	struct srdma_identity *identities = (struct srdma_identity *)(uintptr_t)limits->identities;

	srdma_identities_free(&identities, limits->identity_count);
	*limits = (struct srdma_server_limits){0};
}
