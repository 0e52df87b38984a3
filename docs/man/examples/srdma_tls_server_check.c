/* SPDX-License-Identifier: Apache-2.0 */
/* Says before the start of a server what its clients would refuse. */
#include <securdma_cert.h>
#include <stdio.h>

void print_check(const struct srdma_check *check, void *arg)
{
	(void)arg;
	if (check->result != SRDMA_CHECK_OK)
		printf("%s: %s%s%s\n", check->what, check->text, check->advice ? "; " : "", check->advice ? check->advice : "");
}

int check_server(const struct srdma_tls_server_options *options)
{
	return srdma_tls_server_check(options, print_check, NULL);
}
