/* SPDX-License-Identifier: Apache-2.0 */
/* A TLS peer that sends KeyUpdates and nothing else, which Python's ssl can't; the frames before them are the test's.
 * usage: key_updates HOST PORT CA CERT KEY SECONDS [HELLO-HEX READY-HEX]
 * With the frames it sends the first, reads one frame, and sends the second. Prints "ready", then how many KeyUpdates it sent before the
 * other end closed, or the time was over; "closed" or "open". */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
	fprintf(stderr, "key_updates: %s: %s\n", what, strerror(errno));
	exit(2);
}

static int dial(const char *host, const char *port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || inet_pton(AF_INET, host, &address.sin_addr) != 1 ||
	    connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
		die("connect");
	return fd;
}

static SSL *handshake(int fd, char **argv)
{
	static const unsigned char alpn[] = "\x0asecurdma/1";
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	SSL *ssl;

	if (!context || SSL_CTX_load_verify_file(context, argv[3]) != 1 || SSL_CTX_use_certificate_chain_file(context, argv[4]) != 1 ||
	    SSL_CTX_use_PrivateKey_file(context, argv[5], SSL_FILETYPE_PEM) != 1)
		die("certificates");
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_alpn_protos(context, alpn, sizeof alpn - 1);
	ssl = SSL_new(context);
	if (!ssl || SSL_set_fd(ssl, fd) != 1 || SSL_connect(ssl) != 1)
		die("handshake");
	SSL_CTX_free(context);
	return ssl;
}

static void send_hex(SSL *ssl, const char *hex)
{
	unsigned char bytes[512];
	size_t length = 0;
	unsigned byte;

	while (length < sizeof bytes && sscanf(hex + 2 * length, "%2x", &byte) == 1)
		bytes[length++] = (unsigned char)byte;
	if (SSL_write(ssl, bytes, (int)length) != (int)length)
		die("write");
}

static void read_exactly(SSL *ssl, unsigned char *bytes, int length)
{
	for (int have = 0, n; have < length; have += n)
		if ((n = SSL_read(ssl, bytes + have, length - have)) <= 0)
			die("read");
}

static void read_frame(SSL *ssl)
{
	unsigned char bytes[65536];

	read_exactly(ssl, bytes, 4);
	read_exactly(ssl, bytes, bytes[0] << 8 | bytes[1]);
}

int main(int argc, char **argv)
{
	unsigned long sent = 0;
	struct timespec now;
	time_t end;
	SSL *ssl;

	if (argc != 7 && argc != 9)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	ssl = handshake(dial(argv[1], argv[2]), argv);
	if (argc == 9) {
		send_hex(ssl, argv[7]);
		read_frame(ssl);
		send_hex(ssl, argv[8]);
	}
	printf("ready\n");
	fflush(stdout);
	clock_gettime(CLOCK_MONOTONIC, &now);
	end = now.tv_sec + atoi(argv[6]);
	while (SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1 && SSL_do_handshake(ssl) == 1 && now.tv_sec < end) {
		sent++;
		clock_gettime(CLOCK_MONOTONIC, &now);
	}
	printf("%lu %s\n", sent, now.tv_sec < end ? "closed" : "open");
	SSL_free(ssl);
	return 0;
}
