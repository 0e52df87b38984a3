/* SPDX-License-Identifier: Apache-2.0 */
/* One end of a sealed connection, whose peer has the keys: control records as they come, chunks that arrive, what the program calls,
 * and the end of the connection at any time. A read that is complete has every byte from the peer; no memory is touched that is
 * not lent to the library, before, during or after; and no queue overflows.
 *
 * Input: steps, each two bytes and what they tell of. Bit 15: more comes before the end looks; the low twelve bits: how many bytes
 * follow. One byte: a call of the program's. Two: the device does its work. Else they are a record as it is, or with bit 14 what its
 * headers are made from, three bytes each. */
#include "fuzz.h"

#include "end_rig.h"

#include "log.h"

#include <errno.h>
#include <string.h>

enum { REGION = 70000, PEER_REGION = 300000 };

static struct end_rig rig;
static struct {
	bool write;
	size_t length;
	char *memory; /* NULL: there is none */
	struct srdma_buffer *buffer;
} lent[RIG_RDMA_DEPTH];

int LLVMFuzzerInitialize(int *argc, char ***argv);
/* ---- no cipher: whatever the peer sends authenticates ---------------------------------------------------------- */

int __wrap_srdma_sealer_new(enum srdma_cipher cipher, const uint8_t *secret, struct srdma_sealer **out);
int __wrap_srdma_opener_new(enum srdma_cipher cipher, const uint8_t *secret, struct srdma_opener **out);
void __wrap_srdma_sealer_delete(struct srdma_sealer **out);
void __wrap_srdma_opener_delete(struct srdma_opener **out);
int __wrap_srdma_sealer_seal(struct srdma_sealer *sealer, const void *header, size_t header_length, const void *data, size_t length, void *out);
int __wrap_srdma_opener_open(struct srdma_opener *opener, uint64_t number, const void *header, size_t header_length, const void *sealed,
			     size_t sealed_length, void *out);
void __wrap_srdma_sealer_prepare(struct srdma_sealer *sealer, const void *header, size_t header_length);
void __wrap_srdma_opener_prepare(struct srdma_opener *opener, uint64_t number, const void *header, size_t header_length);

static char cipher_of_none[1];

int __wrap_srdma_sealer_new(enum srdma_cipher cipher, const uint8_t *secret, struct srdma_sealer **out)
{
	(void)cipher, (void)secret;
	*out = (struct srdma_sealer *)cipher_of_none;
	return 0;
}

int __wrap_srdma_opener_new(enum srdma_cipher cipher, const uint8_t *secret, struct srdma_opener **out)
{
	(void)cipher, (void)secret;
	*out = (struct srdma_opener *)cipher_of_none;
	return 0;
}

void __wrap_srdma_sealer_delete(struct srdma_sealer **out)
{
	*out = NULL;
}

void __wrap_srdma_opener_delete(struct srdma_opener **out)
{
	*out = NULL;
}

int __wrap_srdma_sealer_seal(struct srdma_sealer *sealer, const void *header, size_t header_length, const void *data, size_t length, void *out)
{
	(void)sealer, (void)header, (void)header_length;
	if (length > 0)
		memmove(out, data, length);
	memset((char *)out + length, 0, SRDMA_SEAL_OVERHEAD);
	return 0;
}

int __wrap_srdma_opener_open(struct srdma_opener *opener, uint64_t number, const void *header, size_t header_length, const void *sealed,
			     size_t sealed_length, void *out)
{
	(void)opener, (void)number, (void)header, (void)header_length;
	if (sealed_length > SRDMA_SEAL_OVERHEAD)
		memmove(out, sealed, sealed_length - SRDMA_SEAL_OVERHEAD);
	return 0;
}

void __wrap_srdma_sealer_prepare(struct srdma_sealer *sealer, const void *header, size_t header_length)
{
	(void)sealer, (void)header, (void)header_length;
}

void __wrap_srdma_opener_prepare(struct srdma_opener *opener, uint64_t number, const void *header, size_t header_length)
{
	(void)opener, (void)number, (void)header, (void)header_length;
}

/* ---- the program ----------------------------------------------------------------------------------------------- */

/* From here on the sanitizer tells of whoever touches it. */
static void take_back(unsigned i)
{
	srdma_buffer_free(&lent[i].buffer);
	free(lent[i].memory);
	lent[i].memory = NULL;
}

static void collect(void)
{
	uint64_t cookies[RIG_RDMA_DEPTH];
	int count = rig.conn->queues.done_ring.count > 0 ? srdma_conn_complete(rig.conn, cookies, RIG_RDMA_DEPTH, 0) : 0;

	for (int i = 0; i < count; i++) {
		unsigned which = (unsigned)cookies[i];

		if (!lent[which].memory)
			abort();
		/* The peer has sent no byte that is 0. */
		if (!lent[which].write && memchr(lent[which].memory, 0, lent[which].length))
			abort();
		take_back(which);
	}
}

static void settle(void)
{
	rig_settle(&rig);
	collect();
	for (unsigned i = 0; i < RIG_RDMA_DEPTH && rig.conn->status != 0; i++)
		take_back(i);
}

static void post(bool write, size_t length)
{
	unsigned i = 0;
	int ret;

	while (i < RIG_RDMA_DEPTH && lent[i].memory)
		i++;
	if (i == RIG_RDMA_DEPTH || rig.conn->status != 0)
		return;
	lent[i].write = write;
	lent[i].length = length;
	lent[i].memory = calloc(1, length ? length : 1);
	if (!lent[i].memory || srdma_buffer_new(rig.conn, lent[i].memory, length ? length : 1, &lent[i].buffer) != 0)
		abort();
	ret = write ? srdma_conn_post_write(rig.conn, lent[i].buffer, 0, length, 0, i)
		    : srdma_conn_post_read(rig.conn, lent[i].buffer, 0, length, 0, i);
	if (ret != 0)
		take_back(i);
}

static void call(uint8_t choice)
{
	static const uint32_t lengths[] = {0, 1, 2, 17, 2048, 5000, 70000, 300000};

	switch (choice) {
	case 240: srdma_conn_end(rig.conn, srdma_fail(-ETIMEDOUT, "given up")); break;
	case 241:
		rig.tls = SRDMA_ECLOSED;
		srdma_conn_progress(rig.conn, true);
		break;
	case 242: srdma_conn_withdraw_region(rig.conn); break;
	case 243: srdma_buffer_free(&lent[0].buffer); break;
	default: post(choice & 1, lengths[choice / 2 % 8]); break;
	}
	for (unsigned i = 0; i < RIG_RDMA_DEPTH && rig.conn->status != 0; i++)
		take_back(i);
}

/* ---- the peer -------------------------------------------------------------------------------------------------- */

static void say(const uint8_t *data, uint32_t length)
{
	uint8_t record[4096];

	if (length > RIG_MESSAGE_SIZE)
		length = RIG_MESSAGE_SIZE;
	memcpy(record, data, length);
	for (uint32_t i = SRDMA_SEALED_HEADER; i < length && record[1] == 1; i++)
		record[i] |= 1;
	rig_deliver(&rig, RIG_CONTROL, record, length);
}

static void say_nothing(const struct srdma_log_record *record, void *arg)
{
	(void)record, (void)arg;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	srdma_log_set(SRDMA_LOG_ERROR, say_nothing, NULL);
	return 0;
}

/* Records that make sense up to a point: the next bytes of an answer, the next place in the peer's ring. */
static void make_and_say(const uint8_t *data, uint32_t length)
{
	static uint64_t next;
	uint8_t record[SRDMA_SEALED_HEADER + 256] = {0}, *at = record;
	struct srdma_sealed_header h;
	uint64_t address = 0;

	for (uint32_t i = 0; i + 3 <= length && i < 3 * SRDMA_SEALED_BATCH && at + SRDMA_SEALED_HEADER <= record + sizeof record; i += 3) {
		h = (struct srdma_sealed_header){.type = 1 + (data[i] & 3), .within = i == 0 && data[i] & 4 && (data[i] & 3) < 2, .rkey = RIG_KEY};
		h.length = data[i + 1] < 200 || h.within ? data[i + 1] : (data[i + 1] - 199u) * 5000;
		next = data[i] & 8 ? next : 0;
		h.offset = data[i] & 16 ? data[i + 2] : next;
		h.address = h.type == SRDMA_SEALED_READ ? h.length : address;
		srdma_sealed_encode(at, &h);
		next += h.length;
		address += srdma_sealed_ring_align(h.length + SRDMA_SEAL_OVERHEAD);
		at += SRDMA_SEALED_HEADER;
		if (h.within) {
			memset(at, 'w', h.length);
			at += h.length;
			break;
		}
	}
	say(record, (uint32_t)(at - record));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	rig_new(&rig, REGION, PEER_REGION);
	if (rig.staging[0] == 0)
		memset(rig.staging, 'x', SRDMA_SEALED_RING);
	while (size > 2) {
		bool later = data[0] & 0x80, made = data[0] & 0x40;
		size_t length = (size_t)(data[0] << 8 | data[1]) % 4096;

		data += 2;
		size -= 2;
		length = length < size ? length : size;
		if (length == 1)
			call(data[0]);
		else if (length == 2)
			for (unsigned n = data[0] % 64; n > 0 && rig_execute(&rig); n--)
				;
		else if (made)
			make_and_say(data, (uint32_t)length);
		else
			say(data, (uint32_t)length);
		if (!later)
			settle();
		data += length;
		size -= length;
	}
	if (rig.conn->status == 0)
		call(240);
	/* What had come and was not seen, as a link looks at it. */
	while (rig_execute(&rig))
		;
	srdma_queues_poll_receives(&rig.conn->queues);
	settle();
	rig_delete(&rig);
	return 0;
}
