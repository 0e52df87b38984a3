/* SPDX-License-Identifier: Apache-2.0 */
/* Options for a sealed connection whose PSNs are drawn anew every five seconds, with a long retry. */
#include <securdma.h>

int connect_sealed(const char *host, struct srdma_tls_context *tls, struct srdma_device *device, struct srdma_conn **out)
{
	struct srdma_conn_options options;
	struct srdma_qp_options qp;

	srdma_qp_options_init(&qp);
	qp.timeout = 18;
	srdma_conn_options_init(&options);
	options.seal = SRDMA_SEAL_REQUIRED;
	options.epoch_ms = 5000;
	options.qp = &qp; /* copied */
	return srdma_conn_connect(host, SRDMA_DEFAULT_PORT, tls, device, &options, out);
}
