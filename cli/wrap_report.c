/* SPDX-License-Identifier: Apache-2.0 */
/* What a wrapped command did, from the records that its processes appended (wrap/report.h). */
#include "cli.h"
#include "encryption.h"
#include "wrap.h"

#include "../wrap/report.h"

#include <arpa/inet.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SHOWN = 20 }; /* of refusals in the text: JSON has all */

int wrap_report_open(void)
{
	char path[48];
	int fd = memfd_create("securdma-wrap-report", MFD_CLOEXEC);

	snprintf(path, sizeof path, "/proc/%ld/fd/%d", (long)getpid(), fd);
	if (fd >= 0 && setenv("SECURDMA_WRAP_REPORT", path, 1) == 0)
		return fd;
	cli_failed(WRAP_EXIT_OWN, "cannot make memory for the report: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

struct peer {
	const struct report_record *first;
	unsigned queue_pairs, addresses;
};

struct summary {
	const struct report_record *records;
	size_t count;
	unsigned processes, connected, replaced, refused, observed, revoked;
	struct peer *peers;
	size_t peer_count;
	/* Of the starting PSNs that the program passed for its own sends (sq_psn). */
	unsigned psns, zero, distinct, most;
	uint32_t most_frequent;
};

static int compare_numbers(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

	return (left > right) - (left < right);
}

static void count_psns(struct summary *summary, uint32_t *psns)
{
	qsort(psns, summary->psns, sizeof *psns, compare_numbers);
	for (unsigned i = 0, run = 0; i < summary->psns; i++) {
		run = i > 0 && psns[i] == psns[i - 1] ? run + 1 : 1;
		summary->distinct += run == 1;
		summary->zero += psns[i] == 0;
		if (run > summary->most) {
			summary->most = run;
			summary->most_frequent = psns[i];
		}
	}
}

static struct peer *peer_of(struct summary *summary, const struct report_record *record)
{
	struct peer *peer = summary->peers;

	for (size_t i = 0; i < summary->peer_count; i++, peer++)
		if (memcmp(peer->first->peer_gid, record->peer_gid, 16) == 0 && strcmp(peer->first->peer, record->peer) == 0 &&
		    strcmp(peer->first->encryption, record->encryption) == 0)
			return peer;
	*peer = (struct peer){.first = record};
	summary->peer_count++;
	return peer;
}

static bool is_new_process(const struct summary *summary, size_t at)
{
	for (size_t i = 0; i < at; i++)
		if (summary->records[i].pid == summary->records[at].pid)
			return false;
	return true;
}

/* Errors: -ENOMEM. */
static int summarize(struct summary *summary)
{
	uint32_t *psns = calloc(summary->count + 1, sizeof *psns);

	summary->peers = calloc(summary->count + 1, sizeof *summary->peers);
	if (!psns || !summary->peers) {
		free(psns);
		return -ENOMEM;
	}
	for (size_t i = 0; i < summary->count; i++) {
		const struct report_record *record = &summary->records[i];

		summary->processes += is_new_process(summary, i);
		switch (record->kind) {
		case REPORT_CONNECTED:
			summary->connected++;
			summary->replaced += record->replaced != 0;
			peer_of(summary, record)->queue_pairs++;
			break;
		case REPORT_STARTED: psns[summary->psns++] = record->psn; break;
		case REPORT_ADDRESS: peer_of(summary, record)->addresses++; break;
		case REPORT_REFUSED: summary->refused++; break;
		case REPORT_OBSERVED: summary->observed++; break;
		case REPORT_REVOKED: summary->revoked++; break;
		default: break;
		}
	}
	count_psns(summary, psns);
	free(psns);
	return 0;
}

static const char *gid_text(const uint8_t gid[16], char text[INET6_ADDRSTRLEN])
{
	bool mapped = IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)(const void *)gid);

	inet_ntop(mapped ? AF_INET : AF_INET6, mapped ? gid + 12 : gid, text, INET6_ADDRSTRLEN);
	return text;
}

static bool is_event(const struct report_record *record)
{
	return record->kind == REPORT_REFUSED || record->kind == REPORT_OBSERVED || record->kind == REPORT_REVOKED;
}

/* ---- as text ---- */

static void print_psns(const struct summary *summary)
{
	fprintf(stderr, "  starting PSNs that the program passed: %u, of which %u different", summary->psns, summary->distinct);
	if (summary->zero > 0)
		fprintf(stderr, ", %u zero", summary->zero);
	if (summary->psns > 1 && summary->most > 1)
		fprintf(stderr, ", %u equal (0x%06x)", summary->most, summary->most_frequent);
	if (summary->psns > 0 && (summary->zero > 0 || (summary->psns > 1 && summary->distinct == 1)))
		fprintf(stderr, ": without the wrapper anyone can guess them");
	fprintf(stderr, "\n");
}

/* Before what was checked. */
static const char *encryption_words(const char *checked)
{
	if (!checked[0])
		return "encryption not checked";
	return strcmp(checked, ENCRYPTION_STAYS_HERE) == 0 ? "not encrypted, but " : "encrypted by ";
}

static void print_peers(const struct summary *summary)
{
	for (size_t i = 0; i < summary->peer_count; i++) {
		const struct peer *peer = &summary->peers[i];
		char gid[INET6_ADDRSTRLEN];

		fprintf(stderr, "  peer %s at %s: %u queue pair%s", peer->first->peer[0] ? peer->first->peer : "(not verified)",
			gid_text(peer->first->peer_gid, gid), peer->queue_pairs, CLI_S(peer->queue_pairs));
		if (peer->addresses > 0)
			fprintf(stderr, ", %u for datagrams", peer->addresses);
		fprintf(stderr, "; %s%s\n", encryption_words(peer->first->encryption), peer->first->encryption);
	}
}

static void print_text(const struct summary *summary, const char *command)
{
	unsigned shown = 0, events = summary->refused + summary->observed + summary->revoked;

	fprintf(stderr, "securdma wrap: report of %s:\n", command);
	fprintf(stderr, "  %u process%s with queue pairs; queue pairs connected: %u, of which %u with PSNs from the agents\n", summary->processes,
		summary->processes == 1 ? "" : "es", summary->connected, summary->replaced);
	print_psns(summary);
	print_peers(summary);
	fprintf(stderr, "  refused: %u, let through although not vouched for: %u, stopped: %u\n", summary->refused, summary->observed, summary->revoked);
	for (size_t i = 0; i < summary->count && shown < SHOWN; i++)
		if (is_event(&summary->records[i])) {
			fprintf(stderr, "  %s (%d): %s\n", summary->records[i].program, summary->records[i].pid, summary->records[i].text);
			shown++;
		}
	if (shown < events)
		fprintf(stderr, "  and %u more\n", events - shown);
}

/* ---- as JSON ---- */

static json_t *peers_json(const struct summary *summary)
{
	json_t *list = json_array();

	for (size_t i = 0; i < summary->peer_count; i++) {
		const struct peer *peer = &summary->peers[i];
		char gid[INET6_ADDRSTRLEN];

		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:i, s:i}", "name", peer->first->peer, "address", gid_text(peer->first->peer_gid, gid),
						      "encryption", peer->first->encryption, "queue_pairs", peer->queue_pairs, "addresses", peer->addresses));
	}
	return list;
}

static json_t *events_json(const struct summary *summary)
{
	json_t *list = json_array();

	for (size_t i = 0; i < summary->count; i++) {
		const struct report_record *record = &summary->records[i];

		if (is_event(record))
			json_array_append_new(list, json_pack("{s:s, s:i, s:s, s:s, s:i, s:s}", "kind", record->kind == REPORT_REFUSED ? "refused" :
							      record->kind == REPORT_OBSERVED ? "observed" : "stopped", "pid", record->pid, "program",
							      record->program, "device", record->device, "qpn", (int)record->qpn, "text", record->text));
	}
	return list;
}

static void print_json(const struct summary *summary, const char *command)
{
	json_t *object = json_pack("{s:s, s:i, s:{s:i, s:i, s:i, s:i, s:i}, s:{s:i, s:i, s:i, s:i, s:i}, s:o, s:o}", "command", command, "processes",
				   summary->processes, "queue_pairs", "connected", summary->connected, "with_agents_psns", summary->replaced, "refused",
				   summary->refused, "observed", summary->observed, "stopped", summary->revoked, "program_psns", "count", summary->psns,
				   "zero", summary->zero, "distinct", summary->distinct, "most_equal", summary->most, "most_frequent",
				   (int)summary->most_frequent, "peers", peers_json(summary), "events", events_json(summary));
	char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;

	if (text)
		fprintf(stderr, "%s\n", text);
	else
		cli_error("cannot print the report as JSON: out of memory, or a text is not UTF-8");
	free(text);
	json_decref(object);
}

void wrap_report_print(int fd, const char *command, bool json)
{
	off_t size = lseek(fd, 0, SEEK_END);
	struct summary summary = {.count = size > 0 ? (size_t)size / sizeof(struct report_record) : 0};
	struct report_record *records = calloc(summary.count + 1, sizeof *records);

	if (!records || pread(fd, records, summary.count * sizeof *records, 0) != (ssize_t)(summary.count * sizeof *records)) {
		cli_error("cannot read the report: %s", records ? strerror(errno) : "out of memory");
		free(records);
		return;
	}
	/* Any process of the command can write there. */
	for (size_t i = 0; i < summary.count; i++) {
		records[i].program[sizeof records[i].program - 1] = records[i].device[sizeof records[i].device - 1] = '\0';
		records[i].peer[sizeof records[i].peer - 1] = records[i].encryption[sizeof records[i].encryption - 1] = '\0';
		records[i].text[sizeof records[i].text - 1] = '\0';
		if (records[i].magic != REPORT_MAGIC)
			records[i].kind = 0;
	}
	summary.records = records;
	if (summarize(&summary) < 0)
		cli_error("cannot print the report: out of memory");
	else if (json)
		print_json(&summary, command);
	else
		print_text(&summary, command);
	free(summary.peers);
	free(records);
}
