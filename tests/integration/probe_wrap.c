/* SPDX-License-Identifier: Apache-2.0 */
/* Of probe-wrapped alone, which has the library's static form in it, linked with --wrap: what chance hardly ever brings, and what this
 * machine's processor does not have.
 *
 * PROBE_NARROW_PSNS=1   PSNs are drawn from the first 65536 alone: those of two epochs would soon meet
 * PROBE_NO_WINDOWS=1    a device that has no memory windows
 * PROBE_SLOW_AES=both   a processor without instructions for AES; =client, =server: at that end of the first connection alone */
#include "conn.h"
#include "seal.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

uint32_t region_mr_rkey(const struct srdma_conn *conn);
uint32_t named_mr_rkey(const struct srdma_conn *conn, uint32_t id);
uint64_t records_sealed(void);

uint32_t region_mr_rkey(const struct srdma_conn *conn)
{
	return conn->region.mr->rkey;
}

uint32_t named_mr_rkey(const struct srdma_conn *conn, uint32_t id)
{
	return srdma_regions_find_own(conn, (uint16_t)id)->mr->rkey;
}

bool __real_srdma_device_has_windows(const struct srdma_device *device);
bool __wrap_srdma_device_has_windows(const struct srdma_device *device);

bool __wrap_srdma_device_has_windows(const struct srdma_device *device)
{
	return !getenv("PROBE_NO_WINDOWS") && __real_srdma_device_has_windows(device);
}

/* ---- records sealed -------------------------------------------------------------------------------------------- */

int __real_srdma_sealer_seal(struct srdma_sealer *sealer, const void *header, size_t header_length, const void *data, size_t length,
			     void *out);
int __wrap_srdma_sealer_seal(struct srdma_sealer *sealer, const void *header, size_t header_length, const void *data, size_t length,
			     void *out);

static atomic_uint_fast64_t most_records;

int __wrap_srdma_sealer_seal(struct srdma_sealer *sealer, const void *header, size_t header_length, const void *data, size_t length,
			     void *out)
{
	int ret = __real_srdma_sealer_seal(sealer, header, header_length, data, length, out);
	uint_fast64_t most = atomic_load(&most_records), records = srdma_sealer_next(sealer);

	while (records > most && !atomic_compare_exchange_weak(&most_records, &most, records))
		;
	return ret;
}

/* In the stream that had most. */
uint64_t records_sealed(void)
{
	return atomic_load(&most_records);
}

/* ---- the generator, the processor ------------------------------------------------------------------------------ */

int __real_RAND_bytes(unsigned char *buffer, int length);
int __wrap_RAND_bytes(unsigned char *buffer, int length);
bool __real_srdma_cipher_aes_is_fast(void);
bool __wrap_srdma_cipher_aes_is_fast(void);

int __wrap_RAND_bytes(unsigned char *buffer, int length)
{
	int ret = __real_RAND_bytes(buffer, length);

	/* Nothing else draws three bytes. */
	if (length == 3 && getenv("PROBE_NARROW_PSNS"))
		buffer[0] = 0;
	return ret;
}

/* The client asks first: its HELLO says what came of it. */
bool __wrap_srdma_cipher_aes_is_fast(void)
{
	static atomic_uint calls;
	const char *slow = getenv("PROBE_SLOW_AES"), *end = atomic_fetch_add(&calls, 1) == 0 ? "client" : "server";

	return !(slow && (strcmp(slow, "both") == 0 || strcmp(slow, end) == 0)) && __real_srdma_cipher_aes_is_fast();
}
