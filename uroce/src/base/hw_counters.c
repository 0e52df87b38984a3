/* SPDX-License-Identifier: Apache-2.0 */
#include "hw_counters.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { NEVER = -1 };

struct shown {
	const char *name; /* below the port's folder */
	long offset;      /* in struct counters; NEVER: it is always 0 */
	unsigned unit;    /* of how many */
};

#define OF(name) (long)offsetof(struct counters, name)

/* The first are those that the thread writes. Of hw_counters, mlx5's names, and rxe's where mlx5 has none for the same; but not both for
 * one: programs add them up. */
static const struct shown table[] = {
	{"/hw_counters/out_of_sequence", OF(out_of_sequence), 1},
	{"/hw_counters/duplicate_request", OF(duplicates), 1},
	{"/hw_counters/packet_seq_err", OF(naks_received), 1},
	{"/hw_counters/rnr_nak_retry_err", OF(rnr_received), 1},
	{"/hw_counters/out_of_buffer", OF(rnr_sent), 1},
	{"/hw_counters/local_ack_timeout_err", OF(timeouts), 1},
	{"/hw_counters/resp_remote_access_errors", OF(remote_access_errors), 1},
	{"/hw_counters/rx_icrc_encapsulated", OF(drop_icrc), 1},
	{"/hw_counters/retry_exceeded_err", OF(retries_exhausted), 1},
	{"/hw_counters/np_ecn_marked_roce_packets", OF(ecn_marked), 1},
	{"/hw_counters/np_cnp_sent", OF(cnps_sent), 1},
	{"/hw_counters/rp_cnp_handled", OF(cnps_received), 1},
	{"/hw_counters/sent_pkts", OF(tx_packets), 1},
	{"/hw_counters/rcvd_pkts", OF(rx_packets), 1},
	{"/hw_counters/send_err", OF(tx_errors), 1},
	/* InfiniBand counts data in words of four bytes. */
	{"/counters/port_xmit_data", OF(tx_bytes), 4},
	{"/counters/port_rcv_data", OF(rx_bytes), 4},
	{"/counters/port_xmit_packets", OF(tx_packets), 1},
	{"/counters/port_rcv_packets", OF(rx_packets), 1},
	{"/counters/unicast_xmit_packets", OF(tx_packets), 1},
	{"/counters/unicast_rcv_packets", OF(rx_packets), 1},
	{"/counters/multicast_xmit_packets", NEVER, 1},
	{"/counters/multicast_rcv_packets", NEVER, 1},
	{"/counters/port_xmit_wait", OF(tx_blocked), 1},
	{"/counters/port_xmit_discards", OF(tx_errors), 1},
	{"/counters/port_rcv_errors", OF(drop_malformed), 1},
	{"/counters/port_rcv_constraint_errors", OF(drop_pkey), 1},
	{"/counters/excessive_buffer_overrun_errors", OF(rx_overflow), 1},
	{"/counters/port_xmit_constraint_errors", NEVER, 1},
	{"/counters/port_rcv_remote_physical_errors", NEVER, 1},
	{"/counters/port_rcv_switch_relay_errors", NEVER, 1},
	{"/counters/local_link_integrity_errors", NEVER, 1},
	{"/counters/link_error_recovery", NEVER, 1},
	{"/counters/link_downed", NEVER, 1},
	{"/counters/symbol_error", NEVER, 1},
	{"/counters/VL15_dropped", NEVER, 1},
};

enum { SHOWN = sizeof table / sizeof table[0] };

static uint64_t value(const struct shown *shown, const struct counters *counters)
{
	if (shown->offset == NEVER)
		return 0;
	const _Atomic uint64_t *counter = (const void *)((const char *)counters + shown->offset);
	return atomic_load_explicit(counter, memory_order_relaxed) / shown->unit;
}

static bool show(const struct device_files *files, const char *port, const struct shown *shown, const struct counters *counters)
{
	char path[DEVICE_FILES_PATH], text[32];

	snprintf(path, sizeof path, "%s%s", port, shown->name);
	snprintf(text, sizeof text, "%llu\n", (unsigned long long)value(shown, counters));
	return device_files_write(files, path, text);
}

bool hw_counters_show(const struct device_files *files, const char *port, const struct counters *counters)
{
	for (int i = 0; i < SHOWN; i++)
		if (!show(files, port, &table[i], counters))
			return false;
	return true;
}

bool hw_counters_open(struct hw_counters *own, const struct device_files *files, const char *port, const struct counters *counters)
{
	*own = (struct hw_counters){.fds = {-1, -1}, .next = UINT64_MAX};
	if (!hw_counters_show(files, port, counters))
		return false;
	for (int i = 0; i < HW_COUNTERS; i++) {
		char path[DEVICE_FILES_ROOT + DEVICE_FILES_PATH];
		snprintf(path, sizeof path, "%s%s%s", files->root, port, table[i].name);
		own->fds[i] = open(path, O_RDWR | O_CLOEXEC);
		if (own->fds[i] < 0) {
			hw_counters_close(own);
			return false;
		}
		own->shown[i] = value(&table[i], counters);
	}
	own->next = 0;
	return true;
}

void hw_counters_refresh(const struct device_files *files, const char *port, const char *path, const struct counters *counters)
{
	size_t length = strlen(port);

	if (strncmp(path, port, length) != 0)
		return;
	for (int i = 0; i < SHOWN; i++)
		if (strcmp(path + length, table[i].name) == 0)
			show(files, port, &table[i], counters);
}

void hw_counters_publish(struct hw_counters *own, const struct counters *counters, uint64_t now)
{
	own->next = now + HW_COUNTERS_NS;
	for (int i = 0; i < HW_COUNTERS; i++) {
		char text[32];
		uint64_t count = value(&table[i], counters);
		if (count == own->shown[i])
			continue;
		int length = snprintf(text, sizeof text, "%llu\n", (unsigned long long)count);
		/* In one piece, and never shorter than before: a reader sees one number or the other. */
		if (pwrite(own->fds[i], text, (size_t)length, 0) == length)
			own->shown[i] = count;
	}
}

void hw_counters_close(struct hw_counters *own)
{
	own->next = UINT64_MAX;
	for (int i = 0; i < HW_COUNTERS; i++) {
		if (own->fds[i] >= 0)
			close(own->fds[i]);
		own->fds[i] = -1;
	}
}
