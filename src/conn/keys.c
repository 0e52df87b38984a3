/* SPDX-License-Identifier: Apache-2.0 */
#include "keys.h"

#include "seal_pool.h"

#include <openssl/crypto.h>

int srdma_keys_derive(struct srdma_tls *tls, const struct srdma_hello *hello, const struct srdma_hello *welcome,
		      uint8_t secrets[SRDMA_KEYS][SRDMA_SEAL_SECRET])
{
	static const char *const labels[SRDMA_KEYS] = {"EXPORTER-securdma-client-messages", "EXPORTER-securdma-client-chunks",
						       "EXPORTER-securdma-server-messages", "EXPORTER-securdma-server-chunks"};
	uint8_t said[2 * SRDMA_FRAME_MAX];
	size_t length = srdma_hello_encode(said, SRDMA_FRAME_HELLO, hello);
	int ret = 0;

	length += srdma_hello_encode(said + length, SRDMA_FRAME_WELCOME, welcome);
	for (size_t i = 0; i < SRDMA_KEYS && ret == 0; i++)
		ret = srdma_tls_export(tls, labels[i], said, length, secrets[i], SRDMA_SEAL_SECRET);
	OPENSSL_cleanse(said, sizeof said);
	return ret;
}

static void wake(void *arg)
{
	srdma_conn_nudge(arg);
}

/* Lets other threads seal and open for the connection, if its options say so. */
static int share_work(struct srdma_conn *conn)
{
	int ret = 0;

	if (conn->options.seal_threads == 0)
		return 0;
	if (!conn->seal_pool) {
		ret = srdma_seal_pool_share(conn->options.seal_threads, &conn->seal_pool);
		conn->shares_seal_pool = ret == 0;
	}
	if (ret == 0)
		ret = srdma_queues_share(&conn->queues, conn->seal_pool, wake, conn);
	return ret == 0 ? srdma_sealed_rdma_share(&conn->sealed_rdma, conn->seal_pool, wake, conn) : ret;
}

int srdma_keys_seal(struct srdma_conn *conn)
{
	uint8_t secrets[SRDMA_KEYS][SRDMA_SEAL_SECRET];
	bool server = srdma_tls_is_server(conn->tls);
	uint8_t(*own)[SRDMA_SEAL_SECRET] = server ? secrets + 2 : secrets, (*peer)[SRDMA_SEAL_SECRET] = server ? secrets : secrets + 2;
	struct srdma_sealer *messages_out = NULL, *chunks_out = NULL;
	struct srdma_opener *messages_in = NULL, *chunks_in = NULL;
	int ret = srdma_keys_derive(conn->tls, server ? &conn->peer : &conn->own, server ? &conn->own : &conn->peer, secrets);

	conn->cipher = ((conn->own.features | conn->peer.features) & SRDMA_FEATURE_CHACHA) ? SRDMA_CIPHER_CHACHA20_POLY1305
											      : SRDMA_CIPHER_AES_256_GCM;
	if (ret == 0)
		ret = srdma_sealer_new(conn->cipher, own[0], &messages_out);
	if (ret == 0)
		ret = srdma_opener_new(conn->cipher, peer[0], &messages_in);
	if (ret == 0)
		ret = srdma_sealer_new(conn->cipher, own[1], &chunks_out);
	if (ret == 0)
		ret = srdma_opener_new(conn->cipher, peer[1], &chunks_in);
	OPENSSL_cleanse(secrets, sizeof secrets);
	if (ret != 0) {
		srdma_sealer_delete(&messages_out);
		srdma_sealer_delete(&chunks_out);
		srdma_opener_delete(&messages_in);
		srdma_opener_delete(&chunks_in);
		return ret;
	}
	conn->sealed = true;
	srdma_queues_seal(&conn->queues, messages_out, messages_in);
	conn->sealed_rdma = (struct srdma_sealed_rdma){
		.queues = &conn->queues, .region = &conn->region, .rate = &conn->rate, .pd = conn->pd, .find_named = srdma_regions_find_own, .named_arg = conn};
	ret = srdma_sealed_rdma_start(&conn->sealed_rdma, chunks_out, chunks_in);
	return ret == 0 ? share_work(conn) : ret;
}
