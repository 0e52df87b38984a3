/* SPDX-License-Identifier: Apache-2.0 */
/* A read is no snapshot: a record that the peer changes has a number before and behind it. */
#include <securdma.h>
#include <string.h>

struct record {
	uint64_t before; /* the writer counts up this one first, and then `behind` */
	char data[48];
	uint64_t behind;
};

/* Reads the record at the beginning of the peer's region. Plain RDMA reads promise no order within: the data may need a checksum, too. */
int read_record(struct srdma_conn *conn, struct record *record)
{
	int ret;

	do
		ret = srdma_conn_read(conn, record, sizeof *record, 0, SRDMA_DEFAULT_TIMEOUT);
	while (ret == 0 && record->before != record->behind);
	return ret;
}
