/* SPDX-License-Identifier: Apache-2.0 */
/* The files of most tests of TLS: a folder with a CA, a server's certificate and a client's certificate, and options that name them.
 * Include pki.h and tls_pair.h first. */
#ifndef TEST_TLS_FILES_H
#define TEST_TLS_FILES_H

#define HOST "host.example.com"

static struct pki ca, server_cert, client_cert;

static inline int make_files(void **state)
{
	if (enter_folder(state) != 0)
		return -1;
	ca = pki_make((struct pki_request){.name = "CA", .ca = true});
	server_cert = pki_make((struct pki_request){.name = "server",
						    .issuer = &ca,
						    .extended = "serverAuth",
						    .names = "DNS:" HOST ",IP:127.0.0.1,IP:::1,IP:fe80::1,IP:fd00::7"});
	client_cert = pki_make((struct pki_request){.name = "client", .issuer = &ca, .extended = "clientAuth"});
	pki_save("ca", &ca);
	pki_save("server", &server_cert);
	pki_save("client", &client_cert);
	return 0;
}

static inline int remove_files(void **state)
{
	pki_free_all();
	return leave_folder(state);
}

static inline struct srdma_tls_server_options server_options(void)
{
	return (struct srdma_tls_server_options){.size = sizeof(struct srdma_tls_server_options),
						 .cert_file = "server.crt",
						 .key_file = "server.key",
						 .client_ca_file = "ca.crt"};
}

static inline struct srdma_tls_client_options client_with(const char *cert, const char *key)
{
	return (struct srdma_tls_client_options){
		.size = sizeof(struct srdma_tls_client_options), .ca_file = "ca.crt", .cert_file = cert, .key_file = key};
}

static inline struct srdma_tls_client_options client_options(void)
{
	return client_with("client.crt", "client.key");
}

static inline struct end server_of(bool allow_tls12)
{
	struct srdma_tls_server_options options = server_options();

	options.allow_tls12 = allow_tls12;
	return ours_server(options);
}

static inline struct end client_of(bool allow_tls12)
{
	struct srdma_tls_client_options options = client_options();

	options.allow_tls12 = allow_tls12;
	return ours_client(options);
}

static inline struct end raw_client(void)
{
	return raw_end(false, &client_cert);
}

static inline struct end raw_server(void)
{
	return raw_end(true, &server_cert);
}

#endif
