/* SPDX-License-Identifier: Apache-2.0 */
/* What comes of a trial: completions, events, states; and the line that tells them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "status.h"

enum {
	SETTLE_MS = 10,   /* for what comes beside the last completion */
	EVENT_MS = 2000,
	REFUSAL_MS = 2000, /* for the target's state when it has refused a request */
};

static const char *const status_names[] = {
	[IBV_WC_SUCCESS] = "SUCCESS",
	[IBV_WC_LOC_LEN_ERR] = "LOC_LEN_ERR",
	[IBV_WC_LOC_QP_OP_ERR] = "LOC_QP_OP_ERR",
	[IBV_WC_LOC_EEC_OP_ERR] = "LOC_EEC_OP_ERR",
	[IBV_WC_LOC_PROT_ERR] = "LOC_PROT_ERR",
	[IBV_WC_WR_FLUSH_ERR] = "WR_FLUSH_ERR",
	[IBV_WC_MW_BIND_ERR] = "MW_BIND_ERR",
	[IBV_WC_BAD_RESP_ERR] = "BAD_RESP_ERR",
	[IBV_WC_LOC_ACCESS_ERR] = "LOC_ACCESS_ERR",
	[IBV_WC_REM_INV_REQ_ERR] = "REM_INV_REQ_ERR",
	[IBV_WC_REM_ACCESS_ERR] = "REM_ACCESS_ERR",
	[IBV_WC_REM_OP_ERR] = "REM_OP_ERR",
	[IBV_WC_RETRY_EXC_ERR] = "RETRY_EXC_ERR",
	[IBV_WC_RNR_RETRY_EXC_ERR] = "RNR_RETRY_EXC_ERR",
	[IBV_WC_LOC_RDD_VIOL_ERR] = "LOC_RDD_VIOL_ERR",
	[IBV_WC_REM_INV_RD_REQ_ERR] = "REM_INV_RD_REQ_ERR",
	[IBV_WC_REM_ABORT_ERR] = "REM_ABORT_ERR",
	[IBV_WC_INV_EECN_ERR] = "INV_EECN_ERR",
	[IBV_WC_INV_EEC_STATE_ERR] = "INV_EEC_STATE_ERR",
	[IBV_WC_FATAL_ERR] = "FATAL_ERR",
	[IBV_WC_RESP_TIMEOUT_ERR] = "RESP_TIMEOUT_ERR",
	[IBV_WC_GENERAL_ERR] = "GENERAL_ERR",
};
static const char *const event_names[] = {
	[IBV_EVENT_CQ_ERR] = "CQ_ERR",
	[IBV_EVENT_QP_FATAL] = "QP_FATAL",
	[IBV_EVENT_QP_REQ_ERR] = "QP_REQ_ERR",
	[IBV_EVENT_QP_ACCESS_ERR] = "QP_ACCESS_ERR",
	[IBV_EVENT_COMM_EST] = "COMM_EST",
	[IBV_EVENT_SQ_DRAINED] = "SQ_DRAINED",
	[IBV_EVENT_QP_LAST_WQE_REACHED] = "QP_LAST_WQE_REACHED",
};
static const char *const state_names[] = {"RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR"};

#define NAME(names, value) ((size_t)(value) < sizeof(names) / sizeof *(names) && (names)[value] ? (names)[value] : "UNKNOWN")

static const char *error_name(int error)
{
	switch (error) {
	case EINVAL: return "EINVAL";
	case ENOMEM: return "ENOMEM";
	case EPERM: return "EPERM";
	case EBUSY: return "EBUSY";
	case EOPNOTSUPP: return "EOPNOTSUPP";
	case ENOSYS: return "ENOSYS";
	case EFAULT: return "EFAULT";
	case ENETUNREACH: return "ENETUNREACH";
	case EHOSTUNREACH: return "EHOSTUNREACH";
	case ENODEV: return "ENODEV";
	case ENODATA: return "ENODATA";
	default: return strerror(error);
	}
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

enum ibv_qp_state state_of(const struct end *end)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;

	must(!ibv_query_qp(end->qp, &attr, IBV_QP_STATE, &init), "ibv_query_qp");
	return attr.qp_state;
}

static bool take_completions(struct end *end)
{
	struct ibv_wc wc;
	bool some = false;

	while (ibv_poll_cq(end->cq, 1, &wc) > 0) {
		some = true;
		if (end->count < MAX_SEEN)
			end->seen[end->count++] = wc.status;
	}
	return some;
}

void watch_end(struct end *end, int count)
{
	for (int64_t until = now_ms() + lab.patience; end->count < count && now_ms() < until; nap())
		take_completions(end);
}

static void take_event(struct trial *trial)
{
	struct ibv_async_event event;

	if (ibv_get_async_event(lab.context, &event))
		return;
	bool of_queue = event.event_type == IBV_EVENT_CQ_ERR;
	for (int i = 0; i < 2; i++) {
		struct end *end = i == 0 ? &trial->requester : &trial->target;
		bool here = of_queue ? event.element.cq == end->cq : event.element.qp == end->qp;
		if (here && event.event_type <= IBV_EVENT_QP_LAST_WQE_REACHED && end->events < MAX_EVENTS)
			end->event[end->events++] = event.event_type;
	}
	ibv_ack_async_event(&event);
}

void watch_for_event(struct trial *trial, const struct end *end)
{
	for (int64_t until = now_ms() + EVENT_MS; end->events == 0 && now_ms() < until; nap())
		take_event(trial);
}

static bool take(struct trial *trial)
{
	bool requester = take_completions(&trial->requester);
	bool target = take_completions(&trial->target);

	take_event(trial);
	return requester || target;
}

void watch_ms(struct trial *trial, int ms)
{
	for (int64_t end = now_ms() + ms; now_ms() < end; nap())
		take(trial);
}

static bool was_refused(const struct end *requester)
{
	return requester->count > 0 &&
	       (requester->seen[0] == IBV_WC_REM_INV_REQ_ERR || requester->seen[0] == IBV_WC_REM_ACCESS_ERR ||
		requester->seen[0] == IBV_WC_REM_OP_ERR);
}

/* Whether everything has come, as far as one can know. */
static bool all_has_come(const struct trial *trial, int64_t waited_ms)
{
	const struct end *requester = &trial->requester, *target = &trial->target;

	if (requester->count < requester->posted)
		return false;
	if (!target->qp)
		return true;
	if (state_of(target) == IBV_QPS_ERR)
		return target->count >= target->posted;
	if (was_refused(requester) && waited_ms < REFUSAL_MS)
		return false;
	bool arrives = requester->count > 0 && requester->seen[requester->count - 1] == IBV_WC_SUCCESS;
	return !arrives || target->count >= trial->arrivals;
}

void watch(struct trial *trial)
{
	int64_t began = now_ms();

	while (now_ms() - began < lab.patience && !all_has_come(trial, now_ms() - began))
		if (!take(trial))
			nap();
	watch_ms(trial, SETTLE_MS);
}

void expect_success(struct ibv_cq *cq, const char *what)
{
	struct ibv_wc wc;
	int64_t end = now_ms() + lab.patience;
	int n;

	while ((n = ibv_poll_cq(cq, 1, &wc)) == 0 && now_ms() < end)
		nap();
	if (n == 1 && wc.status != IBV_WC_SUCCESS)
		fprintf(stderr, "status: %s\n", NAME(status_names, wc.status));
	must(n == 1 && wc.status == IBV_WC_SUCCESS, what);
}

/* ---- the line ---- */

static void print_statuses(const struct end *end)
{
	if (end->count == 0)
		printf("-");
	for (int i = 0; i < end->count; i++) {
		int same = i + 1;
		while (same < end->count && end->seen[same] == end->seen[i])
			same++;
		printf("%s%s", i ? " " : "", NAME(status_names, end->seen[i]));
		if (same - i > 1)
			printf("*%d", same - i);
		i = same - 1;
	}
}

static void print_events(const struct end *end)
{
	for (int i = 0; i < end->events; i++)
		printf("%s%s", i ? "+" : "", NAME(event_names, end->event[i]));
	if (end->events == 0)
		printf("-");
}

static void print_state(const struct end *end)
{
	printf("%s", end->qp ? NAME(state_names, state_of(end)) : "gone");
}

void report(const struct trial *trial, const char *name)
{
	printf("%s | ", name);
	if (trial->refused)
		printf("refused: %s%s", error_name(trial->refused), trial->requester.count ? " " : "");
	if (trial->note)
		printf("%s%s", trial->note, trial->requester.count ? " " : "");
	if ((!trial->refused && !trial->note) || trial->requester.count)
		print_statuses(&trial->requester);
	printf(" | ");
	print_statuses(&trial->target);
	printf(" | ");
	print_events(&trial->requester);
	printf(" ");
	print_events(&trial->target);
	printf(" | ");
	print_state(&trial->requester);
	printf(" ");
	print_state(&trial->target);
	printf("\n");
	fflush(stdout);
}
