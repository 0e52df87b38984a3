/* SPDX-License-Identifier: Apache-2.0 */
#include "server_limits.h"

#include "device.h"
#include "identities.h"
#include "log.h"
#include "machine.h"
#include "sized.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#define FDS_PER_CLIENT 1 /* TLS socket */
#define FDS_PER_WORKER 3 /* epoll, eventfd, completion channel */
#define FDS_BESIDES    64

SRDMA_DEFAULTS(srdma_server_limits, .max_clients = 10, .max_pending = 64)

int srdma_limits_complete(const struct srdma_server_limits *given, struct srdma_server_limits *out)
{
	return SRDMA_SIZED_TAKE(srdma_server_limits, identity_count, given, out);
}

uint64_t srdma_limits_most_pending(const struct srdma_server_limits *limits)
{
	return 2ull * limits->max_pending;
}

/* Most clients never use all of these: a spare queue pair is for the next renewal, staging and landing rings are for sealed writes
 * and reads. */
static void judge_device(struct srdma_verdict *verdict, const struct srdma_device *device, unsigned clients,
			 const struct srdma_conn_options *conn)
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
			srdma_verdict_take(verdict, SRDMA_CHECK_FAIL, 0, "lower max-clients", "%s: max-clients %u needs %lu, and %s has %lu",
					   limits[i].what, clients, limits[i].need, srdma_device_name(device), limits[i].have);
	srdma_verdict_take(verdict, SRDMA_CHECK_OK, 0, NULL, "%s has the queue pairs and memory regions for max-clients %u",
			   srdma_device_name(device), clients);
}

/* The most memory that all clients together can need, and one client. */
struct need {
	uint64_t all, largest;
	uint64_t all_registered, largest_registered; /* without seal lanes, which no device locks */
	unsigned clients;
	const char *most; /* "up to ", if clients may differ */
};

static int find_need(const struct srdma_server_limits *limits, const struct srdma_conn_options *conn, struct need *need)
{
	struct srdma_conn_options registered = *conn;
	int ret;

	*need = (struct need){.clients = limits->max_clients, .most = limits->identity_count > 0 ? "up to " : ""};
	ret = srdma_policy_memory(limits, conn, &need->all, &need->largest);
	registered.seal_threads = 0;
	return ret == 0 ? srdma_policy_memory(limits, &registered, &need->all_registered, &need->largest_registered) : ret;
}

#define LOWER "lower max-clients, region-size, depth or message-size"

/* More than the machine has is an error, since clients would fail or the kernel would kill the server. More than is available now is
 * only a warning, since memory may become free. */
static void judge_memory(struct srdma_verdict *verdict, const struct need *need)
{
	unsigned long long mib = need->all >> 20, kib = need->largest >> 10;
	struct srdma_machine machine;

	srdma_machine_look("", &machine);
	if (need->all > machine.memory)
		srdma_verdict_take(verdict, SRDMA_CHECK_FAIL, 0, LOWER,
				   "max-clients %u at %s%llu KiB each needs %llu MiB; the machine, or the control group, has %llu MiB",
				   need->clients, need->most, kib, mib, (unsigned long long)machine.memory >> 20);
	else if (need->all > machine.available)
		srdma_verdict_take(
			verdict, SRDMA_CHECK_WARN, 0, LOWER,
			"max-clients %u at %s%llu KiB each needs %llu MiB, and %llu MiB are available: the server may reject the last ones",
			need->clients, need->most, kib, mib, (unsigned long long)machine.available >> 20);
	else
		srdma_verdict_take(verdict, SRDMA_CHECK_OK, 0, NULL,
				   "max-clients %u at %s%llu KiB each needs %llu MiB, and %llu MiB are available", need->clients,
				   need->most, kib, mib, (unsigned long long)machine.available >> 20);
}

#define UNLOCK                                                                                                         \
	"ulimit -l unlimited (permanently: '* - memlock unlimited' in /etc/security/limits.d/rdma.conf, LimitMEMLOCK=infinity in a " \
	"service)"

/* A device of the kernel locks the memory that it may access; a device in user space does not. */
static void judge_locked_memory(struct srdma_verdict *verdict, const struct srdma_device *device, const struct need *need)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0)
		return;
	if (!srdma_device_is_of_kernel(device))
		srdma_verdict_take(verdict, SRDMA_CHECK_OK, 0, NULL, "%s is a device in user space and locks no memory",
				   srdma_device_name(device));
	else if (limit.rlim_cur == RLIM_INFINITY || srdma_machine_may_lock_all())
		srdma_verdict_take(verdict, SRDMA_CHECK_OK, 0, NULL, "there is no limit; max-clients %u needs %llu KiB", need->clients,
				   (unsigned long long)need->all_registered >> 10);
	else if (limit.rlim_cur < need->largest_registered)
		srdma_verdict_take(verdict, SRDMA_CHECK_FAIL, 0, UNLOCK, "the limit is %llu KiB, and one client needs %s%llu KiB",
				   (unsigned long long)limit.rlim_cur >> 10, need->most, (unsigned long long)need->largest_registered >> 10);
	else if (limit.rlim_cur < need->all_registered)
		srdma_verdict_take(verdict, SRDMA_CHECK_WARN, 0, UNLOCK,
				   "the limit is %llu KiB, and max-clients %u needs %llu KiB: the server may reject the last ones",
				   (unsigned long long)limit.rlim_cur >> 10, need->clients, (unsigned long long)need->all_registered >> 10);
	else
		srdma_verdict_take(verdict, SRDMA_CHECK_OK, 0, NULL, "the limit is %llu KiB, and max-clients %u needs %llu KiB",
				   (unsigned long long)limit.rlim_cur >> 10, need->clients, (unsigned long long)need->all_registered >> 10);
}

/* Runs last, because it changes the limit of the process. */
static void judge_descriptors(struct srdma_verdict *verdict, const struct srdma_server_limits *limits, int workers)
{
	rlim_t threads = workers < 0 ? limits->max_clients : (rlim_t)workers;
	rlim_t clients = limits->max_clients + (rlim_t)srdma_limits_most_pending(limits);
	rlim_t need = clients * FDS_PER_CLIENT + threads * FDS_PER_WORKER + FDS_BESIDES;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	if (limit.rlim_max < need) {
		srdma_verdict_take(verdict, SRDMA_CHECK_FAIL, 0, "raise it (ulimit -n, LimitNOFILE= in a service), or lower max-clients",
				   "max-clients %u and max-pending %u need %lu file descriptors; the limit is %lu", limits->max_clients,
				   limits->max_pending, (unsigned long)need, (unsigned long)limit.rlim_max);
		return;
	}
	if (limit.rlim_cur < need) {
		limit.rlim_cur = need;
		if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
			srdma_verdict_take(verdict, SRDMA_CHECK_FAIL, 0, NULL, "cannot raise the limit of file descriptors to %lu: %s",
					   (unsigned long)need, strerror(errno));
	}
	srdma_verdict_take(verdict, SRDMA_CHECK_OK, 0, NULL, "max-clients %u and max-pending %u need %lu; the limit is %lu",
			   limits->max_clients, limits->max_pending, (unsigned long)need, (unsigned long)limit.rlim_max);
}

/* An empty list is no error: an operator who removes the last name wants it removed. */
static void judge_list(struct srdma_verdict *verdict, const struct srdma_server_limits *limits)
{
	if (limits->only_listed_identities && limits->identity_count == 0)
		srdma_verdict_take(verdict, SRDMA_CHECK_WARN, 0, "add [identity NAME] sections to the configuration file",
				   "the server serves only listed identities and none is listed: it refuses every client");
}

int srdma_limits_check_numbers(const struct srdma_server_limits *limits)
{
	if (limits->max_clients == 0 || limits->max_pending == 0)
		return srdma_fail(-EINVAL, "max-clients %u and max-pending %u must be at least 1", limits->max_clients, limits->max_pending);
	return 0;
}

int srdma_limits_check(const struct srdma_server_limits *limits, const struct srdma_server_options *options, const struct srdma_device *device,
		       struct srdma_bench *bench)
{
	struct srdma_verdict queues = {0}, memory = {0}, locked = {0}, descriptors = {0}, list = {0};
	struct need need;
	int ret = find_need(limits, options->conn, &need);

	if (ret != 0)
		return ret;
	if (device) {
		judge_device(&queues, device, limits->max_clients, options->conn);
		judge_locked_memory(&locked, device, &need);
	}
	judge_memory(&memory, &need);
	judge_descriptors(&descriptors, limits, options->workers);
	judge_list(&list, limits);
	srdma_bench_report(bench, "device limits", &queues);
	srdma_bench_report(bench, "memory", &memory);
	srdma_bench_report(bench, "locked memory", &locked);
	srdma_bench_report(bench, "file descriptors", &descriptors);
	srdma_bench_report(bench, "identities", &list);
	return srdma_bench_end(bench);
}

/* A running server does not repeat warnings that have not changed. */
static void log_warning(const struct srdma_check *check, void *arg)
{
	bool starting = *(const bool *)arg;

	if (check->result == SRDMA_CHECK_WARN && (starting || strcmp(check->what, "identities") == 0))
		srdma_log(SRDMA_LOG_WARN, "%s: %s; %s", check->what, check->text, check->advice);
}

int srdma_limits_take(const struct srdma_server_limits *limits, const struct srdma_server_options *options,
		      const struct srdma_device *device, bool starting, struct srdma_server_limits *out)
{
	struct srdma_bench bench = {.fn = log_warning, .arg = &starting};
	struct srdma_server_limits own = *limits;
	struct srdma_identity *identities = NULL;
	int ret;

	ret = srdma_limits_check_numbers(limits);
	if (ret != 0)
		return ret;
	ret = srdma_identities_copy(limits->identities, limits->identity_count, &identities);
	own.identities = identities;
	if (ret == 0)
		ret = srdma_limits_check(&own, options, device, &bench);
	if (ret != 0) {
		srdma_identities_free(&identities, own.identity_count);
		return ret;
	}
	*out = own;
	return 0;
}

void srdma_limits_free(struct srdma_server_limits *limits)
{
	struct srdma_identity *identities = (struct srdma_identity *)(uintptr_t)limits->identities;

	srdma_identities_free(&identities, limits->identity_count);
	*limits = (struct srdma_server_limits){0};
}
