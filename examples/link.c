/* SPDX-License-Identifier: Apache-2.0 */
/* Sends numbers for a while to one of some servers, whatever happens to them.
 * usage: link HOST:PORT...   with ca.crt, client.crt and client.key in the working folder */
#include <securdma_link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SERVERS 8
#define NUMBERS 1000

/* Which messages the old connection took with it. A program that can't bear a doubt puts numbers into its messages and asks. */
static void tell_loss(const struct srdma_link *link)
{
	struct srdma_link_loss loss;

	srdma_link_get_loss(link, &loss);
	printf("%s; reconnected after %llu ms; delivered: up to %llu, in doubt: %llu\n", loss.text,
	       (unsigned long long)(loss.down_us / 1000), (unsigned long long)loss.acknowledged,
	       (unsigned long long)(loss.sent - loss.acknowledged));
}

static int send_numbers(struct srdma_link *link)
{
	char text[32], echo[64];
	size_t length;
	int ret = 0;

	for (int i = 1; i <= NUMBERS && ret == 0; i++) {
		snprintf(text, sizeof text, "number %d", i);
		do {
			ret = srdma_link_send(link, text, strlen(text), SRDMA_DEFAULT_TIMEOUT, NULL);
			if (ret == 0)
				ret = srdma_link_recv(link, echo, sizeof echo, &length, SRDMA_DEFAULT_TIMEOUT);
			if (ret == SRDMA_ERECONNECTED)
				tell_loss(link); /* to echo it twice does no harm: send it again */
		} while (ret == SRDMA_ERECONNECTED);
		usleep(5000);
	}
	return ret;
}

int main(int argc, char **argv)
{
	struct srdma_endpoint endpoints[SERVERS];
	struct srdma_tls_client_options tls;
	struct srdma_link_options options;
	struct srdma_tls_context *context = NULL;
	struct srdma_device *device = NULL;
	struct srdma_link *link = NULL;

	srdma_tls_client_options_init(&tls);
	tls.ca_file = "ca.crt";
	tls.cert_file = "client.crt";
	tls.key_file = "client.key";
	srdma_link_options_init(&options);
	options.endpoints = endpoints;
	for (int i = 1; i < argc && options.endpoint_count < SERVERS; i++) {
		char *port = strrchr(argv[i], ':');

		if (port)
			*port++ = '\0';
		srdma_endpoint_init(&endpoints[options.endpoint_count]);
		endpoints[options.endpoint_count].host = argv[i];
		endpoints[options.endpoint_count++].port = port;
	}
	int failed = srdma_tls_client_new(&tls, &context) || srdma_device_open(NULL, &device) ||
		     srdma_link_connect(&options, context, device, &link) || send_numbers(link) ||
		     srdma_link_disconnect(link, "done", SRDMA_DEFAULT_TIMEOUT);
	if (failed)
		fprintf(stderr, "link: %s\n", srdma_error_text());
	else
		printf("%d numbers echoed\n", NUMBERS);
	srdma_link_free(&link);
	srdma_device_unref(&device);
	srdma_tls_context_unref(&context);
	return failed;
}
