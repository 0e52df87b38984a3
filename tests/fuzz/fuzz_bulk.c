/* SPDX-License-Identifier: Apache-2.0 */
/* Control records of a sealed connection, as a peer with the keys could send them: each is a length of two bytes and its bytes, and
 * between them chunks arrive and the program writes and reads. Nothing may be touched beyond the region and the program's buffers,
 * and no ring may overflow. */
#include "bulk.c"

static struct srdma_conn conn;
static struct srdma_bulk_job jobs[4];
static unsigned completed;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- what is below it ---- */

bool srdma_channel_can_control(const struct srdma_channel *channel)
{
	(void)channel;
	return true;
}

int srdma_channel_send_control(struct srdma_channel *channel, const void *data, uint32_t length)
{
	static uint8_t sent[8192];

	(void)channel;
	memcpy(sent, data, length);
	return 0;
}

uint32_t srdma_channel_room_for_pulls(const struct srdma_channel *channel, uint32_t length)
{
	(void)channel;
	(void)length;
	return SRDMA_SUBMIT_MAX;
}

int srdma_channel_post_pulls(struct srdma_channel *channel, const struct srdma_op *ops, uint32_t count)
{
	(void)channel;
	for (uint32_t i = 0; i < count; i++)
		memset((void *)(uintptr_t)ops[i].local, 1, ops[i].length);
	return 0;
}

void srdma_channel_complete_rdma(struct srdma_channel *channel, enum srdma_op_kind kind, uint64_t cookie)
{
	(void)kind;
	(void)cookie;
	channel->rdma_queued--;
	completed++;
}

int srdma_channel_poll(struct srdma_channel *channel)
{
	(void)channel;
	return 0;
}

int srdma_region_new(struct ibv_pd *pd, size_t size, int access, struct srdma_region *out)
{
	static struct ibv_mr mr;

	(void)pd;
	(void)access;
	*out = (struct srdma_region){.address = calloc(1, size), .size = size, .mr = &mr};
	return 0;
}

void srdma_region_release(struct srdma_region *region)
{
	free(region->address);
	*region = (struct srdma_region){0};
}

int srdma_sealer_seal(struct srdma_sealer *sealer, const void *header, size_t header_length, const void *bytes, size_t length, void *out)
{
	(void)sealer;
	(void)header;
	(void)header_length;
	memcpy(out, bytes, length);
	return 0;
}

int srdma_opener_open(struct srdma_opener *opener, uint64_t number, const void *header, size_t header_length, const void *sealed,
		      size_t sealed_length, void *out)
{
	(void)opener;
	(void)number;
	(void)header;
	(void)header_length;
	memcpy(out, sealed, sealed_length - SRDMA_SEAL_OVERHEAD);
	return 0;
}

void srdma_sealer_delete(struct srdma_sealer **sealer)
{
	*sealer = NULL;
}

void srdma_opener_delete(struct srdma_opener **opener)
{
	*opener = NULL;
}

/* ---- the peer, and the program ---- */

static void post_job(uint8_t choice)
{
	struct srdma_bulk_job job = {.write = choice & 1, .kind = SRDMA_OP_WAITED, .length = (choice >> 1) * 5000u};

	if (conn.channel.rdma_queued >= conn.channel.rdma_depth)
		return;
	job.local = calloc(1, job.length + 1);
	for (size_t i = 0; i < 4; i++) {
		if (jobs[i].local)
			continue;
		jobs[i] = job;
		srdma_bulk_post(&conn, &job);
		return;
	}
	free(job.local);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int ret;

	conn = (struct srdma_conn){.channel = {.rdma_depth = 4, .message_size = 4096}};
	conn.region = (struct srdma_region){.address = calloc(1, 300000), .size = 300000, .rights = 6};
	ret = srdma_bulk_start(&conn, NULL, NULL);
	while (ret == 0 && size > 2) {
		size_t length = (size_t)(data[0] << 8 | data[1]) % 4096;
		uint8_t *record;

		data += 2;
		size -= 2;
		length = length < size ? length : size;
		if (length == 1) {
			post_job(data[0]);
		} else if (length == 2) {
			finish_pull(&conn);
		} else {
			record = malloc(length + 1);
			memcpy(record, data, length);
			ret = take_record(&conn, record, (uint32_t)length);
			free(record);
		}
		if (ret == 0)
			ret = srdma_bulk_step(&conn);
		data += length;
		size -= length;
	}
	srdma_bulk_release(&conn);
	free(conn.region.address);
	for (size_t i = 0; i < 4; i++) {
		free(jobs[i].local);
		jobs[i] = (struct srdma_bulk_job){0};
	}
	return 0;
}
