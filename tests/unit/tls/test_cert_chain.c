/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates that an intermediate CA issues: with the certificates above it, so that anyone who trusts the root can verify them. */
#include "test.h"

#include "pki.h"
#include "tls_pair.h"
#include "tls_files.h"

static struct pki root, middle, lower, other;

static int make_chain(void **state)
{
	if (enter_folder(state) != 0)
		return -1;
	root = pki_make((struct pki_request){.name = "Root", .ca = true});
	middle = pki_make((struct pki_request){.name = "Middle", .issuer = &root, .ca = true});
	lower = pki_make((struct pki_request){.name = "Lower", .issuer = &middle, .ca = true});
	other = pki_make((struct pki_request){.name = "Other", .ca = true});
	pki_write_key("root.key", &root);
	pki_write_key("lower.key", &lower);
	PKI_WRITE("root.crt", &root);
	PKI_WRITE("lower.crt", &lower);
	PKI_WRITE("lower-all.crt", &lower, &other, &root, &middle);
	PKI_WRITE("lower-part.crt", &lower, &middle);
	return 0;
}

static int remove_chain(void **state)
{
	pki_free_all();
	return leave_folder(state);
}

static void make(enum srdma_cert_kind kind, const char *issuer, const char *issuer_key)
{
	static const char *const names[] = {"host.example.com"};
	bool server = kind == SRDMA_CERT_SERVER;
	struct srdma_cert_request request = {
		.size = sizeof(struct srdma_cert_request),
		.kind = kind,
		.common_name = "x",
		.names = server ? names : NULL,
		.name_count = server,
		.days = 5,
		.ca_cert_file = issuer,
		.ca_key_file = issuer_key,
		.cert_file = server ? "server.crt" : "client.crt",
		.key_file = server ? "server.key" : "client.key",
		.overwrite = true,
	};

	if (srdma_cert_make(&request) != 0)
		fail_msg("%s", srdma_error_text());
}

/* The common names in a file, one after the other. */
static void assert_holds(const char *file, const char *names)
{
	FILE *in = fopen(file, "r");
	char found[256] = "", name[64];
	X509 *cert;

	assert_non_null(in);
	while ((cert = PEM_read_X509(in, NULL, NULL, NULL)) != NULL) {
		X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, name, sizeof name);
		strcat(found, name);
		strcat(found, " ");
		X509_free(cert);
	}
	ERR_clear_error();
	fclose(in);
	assert_string_equal(found, names);
}

TEST(chain_is_written_without_the_root)
{
	static const struct {
		const char *ca, *key, *chain;
	} cases[] = {
		{"root.crt", "root.key", "x "},
		{"lower.crt", "lower.key", "x Lower "},
		{"lower-part.crt", "lower.key", "x Lower Middle "},
		{"lower-all.crt", "lower.key", "x Lower Middle "},
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		make(SRDMA_CERT_CLIENT, cases[i].ca, cases[i].key);
		assert_holds("client.crt", cases[i].chain);
		make(SRDMA_CERT_SERVER, cases[i].ca, cases[i].key);
		assert_holds("server.crt", cases[i].chain);
	}
}

TEST(end_that_trusts_the_root_or_any_ca_below_accepts_it)
{
	static const char *const trusted[] = {"root.crt", "lower.crt", "lower-part.crt"};

	make(SRDMA_CERT_CLIENT, "lower-part.crt", "lower.key");
	make(SRDMA_CERT_SERVER, "lower-part.crt", "lower.key");
	for (size_t i = 0; i < COUNT(trusted); i++)
		for (size_t j = 0; j < COUNT(trusted); j++) {
			struct srdma_tls_client_options co = client_options();
			struct srdma_tls_server_options so = server_options();

			co.ca_file = trusted[i];
			so.client_ca_file = trusted[j];
			assert_meets(ours_client(co), ours_server(so), HOST);
		}
}

RUN_TESTS(make_chain, remove_chain)
