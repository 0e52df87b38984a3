/* SPDX-License-Identifier: Apache-2.0 */
/* Verdicts on certificates of all kinds; the files are made here, since no command makes some of them. */
#include "test.h"

#include "securdma_cert.h"

#include <dirent.h>
#include <errno.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DAY 86400

static char workdir[64];

/* ---- certificates ---------------------------------------------------------------------------------------------- */

struct pair {
	X509 *cert;
	EVP_PKEY *key;
};

struct shape {
	const char *name, *constraints, *usage, *extended, *names;
	long from, until; /* seconds from now */
	int rsa_bits;     /* 0: P-256 */
};

static const struct shape root = {"root", "critical,CA:TRUE", "critical,keyCertSign,cRLSign", NULL, NULL, -DAY, 100 * DAY, 0};
static const struct shape middle = {"middle", "critical,CA:TRUE", "critical,keyCertSign,cRLSign", NULL, NULL, -DAY, 100 * DAY, 0};
static const struct shape leaf = {"leaf", "critical,CA:FALSE", "critical,digitalSignature", "serverAuth", "DNS:host.example", -DAY, 100 * DAY, 0};

static void extend(struct pair *pair, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX context;
	X509_EXTENSION *extension;

	if (!value)
		return;
	X509V3_set_ctx(&context, issuer, pair->cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	assert_non_null(extension);
	assert_int_equal(X509_add_ext(pair->cert, extension, -1), 1);
	X509_EXTENSION_free(extension);
}

/* `issuer` NULL: signs itself. */
static struct pair make(struct shape shape, const struct pair *issuer)
{
	struct pair pair = {X509_new(), shape.rsa_bits ? EVP_RSA_gen((unsigned)shape.rsa_bits) : EVP_EC_gen("P-256")};
	X509 *above = issuer ? issuer->cert : pair.cert;
	static int serial;

	X509_set_version(pair.cert, X509_VERSION_3);
	X509_set_pubkey(pair.cert, pair.key);
	ASN1_INTEGER_set(X509_get_serialNumber(pair.cert), ++serial);
	X509_NAME_add_entry_by_NID(X509_get_subject_name(pair.cert), NID_commonName, MBSTRING_ASC, (const unsigned char *)shape.name, -1, -1, 0);
	X509_set_issuer_name(pair.cert, X509_get_subject_name(above));
	X509_gmtime_adj(X509_getm_notBefore(pair.cert), shape.from);
	X509_gmtime_adj(X509_getm_notAfter(pair.cert), shape.until);
	extend(&pair, above, NID_basic_constraints, shape.constraints);
	extend(&pair, above, NID_key_usage, shape.usage);
	extend(&pair, above, NID_ext_key_usage, shape.extended);
	extend(&pair, above, NID_subject_alt_name, shape.names);
	extend(&pair, above, NID_subject_key_identifier, "hash");
	assert_true(X509_sign(pair.cert, issuer ? issuer->key : pair.key, EVP_sha256()) > 0);
	return pair;
}

static void drop(struct pair *pair)
{
	X509_free(pair->cert);
	EVP_PKEY_free(pair->key);
}

/* The certificates, one after the other, up to NULL. */
static void write_certs(const char *path, X509 *first, X509 *second, X509 *third)
{
	FILE *file = fopen(path, "w");
	X509 *const certs[] = {first, second, third};

	assert_non_null(file);
	for (size_t i = 0; i < 3 && certs[i]; i++)
		assert_int_equal(PEM_write_X509(file, certs[i]), 1);
	fclose(file);
}

static void write_key(const char *path, EVP_PKEY *key)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(chmod(path, 0600), 0);
	assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
	fclose(file);
}

static int enter_directory(void **state)
{
	strcpy(workdir, "/tmp/securdma-check-XXXXXX");
	return mkdtemp(workdir) && chdir(workdir) == 0 ? 0 : -1;
}

static int leave_directory(void **state)
{
	DIR *directory = opendir(".");
	struct dirent *entry;

	while (directory && (entry = readdir(directory)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			remove(entry->d_name);
	if (directory)
		closedir(directory);
	return chdir("/") || rmdir(workdir) ? -1 : 0;
}

/* ---- verdicts -------------------------------------------------------------------------------------------------- */

static struct {
	char what[32], text[512];
	enum srdma_check_result result;
	bool advised;
} verdicts[16];
static size_t verdict_count;

static void note(const struct srdma_check *check, void *arg)
{
	assert_ptr_equal(arg, verdicts);
	assert_true(verdict_count < 16);
	/* One thing, one verdict. */
	for (size_t i = 0; i < verdict_count; i++)
		assert_string_not_equal(verdicts[i].what, check->what);
	assert_true((check->result == SRDMA_CHECK_FAIL) == (check->error != 0));
	snprintf(verdicts[verdict_count].what, sizeof verdicts->what, "%s", check->what);
	snprintf(verdicts[verdict_count].text, sizeof verdicts->text, "%s", check->text);
	verdicts[verdict_count].result = check->result;
	verdicts[verdict_count++].advised = check->advice != NULL;
}

static void expect(const char *what, enum srdma_check_result result, const char *text)
{
	for (size_t i = 0; i < verdict_count; i++) {
		if (strcmp(verdicts[i].what, what) != 0)
			continue;
		if (verdicts[i].result != result || !strstr(verdicts[i].text, text))
			fail_msg("%s: %d, '%s'", what, verdicts[i].result, verdicts[i].text);
		return;
	}
	fail_msg("no verdict on %s", what);
}

static int check_own(enum srdma_cert_kind kind, const char *ca)
{
	verdict_count = 0;
	return srdma_cert_check(kind, "own.crt", "own.key", ca, note, verdicts);
}

static int check_shape(struct shape shape, enum srdma_cert_kind kind)
{
	struct pair ca = make(root, NULL), own = make(shape, &ca);
	int ret;

	write_certs("own.crt", own.cert, NULL, NULL);
	write_key("own.key", own.key);
	ret = check_own(kind, NULL);
	drop(&own);
	drop(&ca);
	return ret;
}

/* ---- the own certificate ----------------------------------------------------------------------------------------- */

TEST(dates_are_judged)
{
	static const struct {
		long from, until;
		enum srdma_check_result result;
		const char *text;
	} cases[] = {
		{-DAY, 100 * DAY, SRDMA_CHECK_OK, "is valid until"},
		{-DAY, 31 * DAY + 7200, SRDMA_CHECK_OK, "is valid until"},
		{-DAY, 29 * DAY + 7200, SRDMA_CHECK_WARN, "expires in 29 days"},
		{-DAY, 3600, SRDMA_CHECK_WARN, "expires in 0 days"},
		{-2 * DAY, -60, SRDMA_CHECK_FAIL, "expired on "},
		{3600, 100 * DAY, SRDMA_CHECK_WARN, "is not valid before "},
		/* Not to be mended by waiting. */
		{-200 * DAY, -100 * DAY, SRDMA_CHECK_FAIL, "expired on "},
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct shape shape = leaf;

		shape.from = cases[i].from;
		shape.until = cases[i].until;
		assert_int_equal(check_shape(shape, SRDMA_CERT_SERVER), cases[i].result == SRDMA_CHECK_FAIL ? SRDMA_ECONFIG : 0);
		expect("certificate", cases[i].result, cases[i].text);
		expect("key", SRDMA_CHECK_OK, "own.key is the key of own.crt");
		expect("key file", SRDMA_CHECK_OK, "mode 0600");
	}
}

TEST(purposes_are_judged_for_each_end)
{
	struct shape shape = leaf;

	assert_int_equal(check_shape(shape, SRDMA_CERT_CLIENT), SRDMA_ECONFIG);
	expect("certificate", SRDMA_CHECK_FAIL, "is a server certificate, and cannot be used by a client");
	assert_non_null(strstr(srdma_error_text(), "give a client certificate"));
	shape.extended = "clientAuth";
	assert_int_equal(check_shape(shape, SRDMA_CERT_CLIENT), 0);
	assert_int_equal(check_shape(shape, SRDMA_CERT_SERVER), SRDMA_ECONFIG);
	expect("certificate", SRDMA_CHECK_FAIL, "is a client certificate");
	shape.extended = "codeSigning";
	assert_int_equal(check_shape(shape, SRDMA_CERT_SERVER), SRDMA_ECONFIG);
	expect("certificate", SRDMA_CHECK_FAIL, "is a certificate for another purpose");
	/* One that says nothing, or both, is good for both. */
	shape.extended = NULL;
	assert_int_equal(check_shape(shape, SRDMA_CERT_SERVER), 0);
	assert_int_equal(check_shape(shape, SRDMA_CERT_CLIENT), 0);
	shape.extended = "serverAuth,clientAuth";
	assert_int_equal(check_shape(shape, SRDMA_CERT_SERVER), 0);
	assert_int_equal(check_shape(shape, SRDMA_CERT_CLIENT), 0);
	/* The worst counts, whatever comes first. */
	shape = leaf;
	shape.until = 5 * DAY;
	assert_int_equal(check_shape(shape, SRDMA_CERT_CLIENT), SRDMA_ECONFIG);
	expect("certificate", SRDMA_CHECK_FAIL, "is a server certificate");
}

TEST(server_without_names_is_warned_of)
{
	struct shape shape = leaf;

	shape.names = NULL;
	assert_int_equal(check_shape(shape, SRDMA_CERT_SERVER), 0);
	expect("certificate", SRDMA_CHECK_WARN, "contains no DNS name or IP address");
	shape.names = "email:a@example.com";
	assert_int_equal(check_shape(shape, SRDMA_CERT_SERVER), 0);
	expect("certificate", SRDMA_CHECK_WARN, "contains no DNS name or IP address");
	shape.names = "IP:192.0.2.1";
	assert_int_equal(check_shape(shape, SRDMA_CERT_SERVER), 0);
	expect("certificate", SRDMA_CHECK_OK, "is valid");
	shape = leaf;
	shape.names = NULL;
	shape.extended = "clientAuth";
	assert_int_equal(check_shape(shape, SRDMA_CERT_CLIENT), 0);
	expect("certificate", SRDMA_CHECK_OK, "is valid");
}

TEST(key_is_judged)
{
	struct pair ca = make(root, NULL), own = make(leaf, &ca), other = make(leaf, &ca);

	write_certs("own.crt", own.cert, NULL, NULL);
	write_key("own.key", other.key);
	assert_int_equal(check_own(SRDMA_CERT_SERVER, NULL), SRDMA_ECONFIG);
	expect("key", SRDMA_CHECK_FAIL, "own.key is not the private key of own.crt");
	expect("certificate", SRDMA_CHECK_OK, "is valid");
	write_key("own.key", own.key);
	assert_int_equal(chmod("own.key", 0644), 0);
	assert_int_equal(check_own(SRDMA_CERT_SERVER, NULL), 0);
	expect("key file", SRDMA_CHECK_WARN, "other users can read the private key");
	assert_int_equal(chmod("own.key", 0660), 0);
	check_own(SRDMA_CERT_SERVER, NULL);
	expect("key file", SRDMA_CHECK_WARN, "other users can replace the private key");
	/* As a service's key is that root owns and its group reads. */
	assert_int_equal(chmod("own.key", 0640), 0);
	check_own(SRDMA_CERT_SERVER, NULL);
	expect("key file", SRDMA_CHECK_OK, "mode 0640");
	remove("own.key");
	assert_int_equal(check_own(SRDMA_CERT_SERVER, NULL), -ENOENT);
	expect("key", SRDMA_CHECK_FAIL, "own.key");
	remove("own.crt");
	assert_int_equal(check_own(SRDMA_CERT_SERVER, NULL), -ENOENT);
	expect("certificate", SRDMA_CHECK_FAIL, "own.crt");
	drop(&own);
	drop(&other);
	drop(&ca);
}

TEST(chain_is_judged)
{
	struct pair ca = make(root, NULL), between = make(middle, &ca), own = make(leaf, &between), other = make(root, NULL);
	struct shape old = middle;

	write_key("own.key", own.key);
	write_certs("ca.crt", ca.cert, NULL, NULL);
	write_certs("other.crt", other.cert, NULL, NULL);
	write_certs("own.crt", own.cert, between.cert, NULL);
	assert_int_equal(check_own(SRDMA_CERT_SERVER, "ca.crt"), 0);
	expect("certificate chain", SRDMA_CHECK_OK, "own.crt can be verified with ca.crt");
	assert_int_equal(check_own(SRDMA_CERT_SERVER, "other.crt"), SRDMA_ECONFIG);
	expect("certificate chain", SRDMA_CHECK_FAIL, "own.crt cannot be verified with other.crt");
	/* The one in between is missing. */
	write_certs("own.crt", own.cert, NULL, NULL);
	assert_int_equal(check_own(SRDMA_CERT_SERVER, "ca.crt"), SRDMA_ECONFIG);
	expect("certificate chain", SRDMA_CHECK_FAIL, "own.crt cannot be verified with ca.crt");
	/* Something else is in its place, or follows. */
	write_certs("own.crt", own.cert, ca.cert, between.cert);
	check_own(SRDMA_CERT_SERVER, NULL);
	expect("certificate chain", SRDMA_CHECK_WARN, "certificate 2 in own.crt (CN=root) has not issued the one before it");
	drop(&between);
	drop(&own);
	old.until = -60;
	old.from = -2 * DAY;
	between = make(old, &ca);
	own = make(leaf, &between);
	write_key("own.key", own.key);
	write_certs("own.crt", own.cert, between.cert, NULL);
	assert_int_equal(check_own(SRDMA_CERT_SERVER, NULL), 0);
	expect("certificate chain", SRDMA_CHECK_WARN, "certificate 2 in own.crt (CN=middle), of a CA, has expired");
	drop(&between);
	drop(&own);
	drop(&other);
	drop(&ca);
}

/* ---- those that peers come from ---------------------------------------------------------------------------------- */

static int check_server(bool anonymous)
{
	struct srdma_tls_server_options options;

	srdma_tls_server_options_init(&options);
	options.cert_file = "own.crt";
	options.key_file = "own.key";
	options.client_ca_file = "clients.crt";
	options.insecure_anonymous_clients = anonymous;
	verdict_count = 0;
	return srdma_tls_server_check(&options, note, verdicts);
}

TEST(cas_are_judged)
{
	struct pair ca = make(root, NULL), own = make(leaf, &ca);
	struct shape old = root, early = root, weak = root, client = leaf;
	struct pair expired, unborn, short_key, client_leaf;

	old.from = -2 * DAY;
	old.until = -60;
	early.from = 3600;
	weak.rsa_bits = 1024;
	client.extended = "clientAuth";
	expired = make(old, NULL);
	unborn = make(early, NULL);
	short_key = make(weak, NULL);
	client_leaf = make(client, &ca);
	write_certs("own.crt", own.cert, NULL, NULL);
	write_key("own.key", own.key);
	write_certs("clients.crt", ca.cert, NULL, NULL);
	assert_int_equal(check_server(false), 0);
	expect("client CA", SRDMA_CHECK_OK, "clients.crt (CN=root) is valid until");
	write_certs("clients.crt", ca.cert, ca.cert, NULL);
	assert_int_equal(check_server(false), 0);
	expect("client CA", SRDMA_CHECK_OK, "clients.crt has 2 CA certificates");
	write_certs("clients.crt", expired.cert, NULL, NULL);
	assert_int_equal(check_server(false), SRDMA_ECONFIG);
	expect("client CA", SRDMA_CHECK_FAIL, "expired on ");
	/* Some can still come. */
	assert_int_equal(check_server(true), 0);
	expect("client CA", SRDMA_CHECK_WARN, "expired on ");
	write_certs("clients.crt", ca.cert, expired.cert, NULL);
	assert_int_equal(check_server(false), 0);
	expect("client CA", SRDMA_CHECK_WARN, "expired on ");
	write_certs("clients.crt", own.cert, NULL, NULL);
	assert_int_equal(check_server(false), SRDMA_ECONFIG);
	expect("client CA", SRDMA_CHECK_FAIL, "clients.crt (CN=leaf) is not a CA certificate: no client can be verified with it");
	write_certs("clients.crt", client_leaf.cert, NULL, NULL);
	assert_int_equal(check_server(false), 0);
	expect("client CA", SRDMA_CHECK_WARN, "it verifies only the client that has this certificate");
	write_certs("clients.crt", unborn.cert, NULL, NULL);
	assert_int_equal(check_server(false), 0);
	expect("client CA", SRDMA_CHECK_WARN, "is not valid yet");
	write_certs("clients.crt", short_key.cert, NULL, NULL);
	check_server(false);
	expect("client CA", SRDMA_CHECK_WARN, "a key so short that TLS does not accept it");
	drop(&ca);
	drop(&own);
	drop(&expired);
	drop(&unborn);
	drop(&short_key);
	drop(&client_leaf);
}

/* What no look at the files shows, loading them does: the check ends with it. */
TEST(check_fails_where_the_context_would)
{
	struct pair ca = make(root, NULL), own = make(leaf, &ca);
	struct srdma_tls_server_options options;
	struct srdma_tls_client_options client;

	write_certs("own.crt", own.cert, NULL, NULL);
	write_key("own.key", own.key);
	srdma_tls_server_options_init(&options);
	options.cert_file = "own.crt";
	options.key_file = "own.key";
	verdict_count = 0;
	assert_int_equal(srdma_tls_server_check(&options, note, verdicts), SRDMA_ECONFIG);
	expect("credentials", SRDMA_CHECK_FAIL, "--client-ca");
	assert_int_equal(srdma_tls_server_check(&options, NULL, NULL), SRDMA_ECONFIG);
	srdma_tls_client_options_init(&client);
	client.pin = "sha256:1";
	verdict_count = 0;
	assert_int_equal(srdma_tls_client_check(&client, note, verdicts), -EINVAL);
	expect("credentials", SRDMA_CHECK_FAIL, "sha256:1");
	assert_int_equal(srdma_cert_check(SRDMA_CERT_CA, "own.crt", NULL, NULL, NULL, NULL), -EINVAL);
	drop(&own);
	drop(&ca);
}

TEST(expired_list_is_warned_of)
{
	struct pair ca = make(root, NULL), own = make(leaf, &ca);
	struct srdma_tls_server_options options;

	write_certs("own.crt", own.cert, NULL, NULL);
	write_key("own.key", own.key);
	write_certs("clients.crt", ca.cert, NULL, NULL);
	srdma_tls_server_options_init(&options);
	options.cert_file = "own.crt";
	options.key_file = "own.key";
	options.client_ca_file = "clients.crt";
	options.client_crl_file = "list.pem";
	for (int expired = 0; expired < 2; expired++) {
		X509_CRL *list = X509_CRL_new();
		ASN1_TIME *at = ASN1_TIME_set(NULL, time(NULL) - 100);
		FILE *file = fopen("list.pem", "w");

		X509_CRL_set_version(list, X509_CRL_VERSION_2);
		X509_CRL_set_issuer_name(list, X509_get_subject_name(ca.cert));
		X509_CRL_set1_lastUpdate(list, at);
		ASN1_TIME_set(at, time(NULL) + (expired ? -50 : 1000));
		X509_CRL_set1_nextUpdate(list, at);
		assert_true(X509_CRL_sign(list, ca.key, EVP_sha256()) > 0);
		assert_int_equal(PEM_write_X509_CRL(file, list), 1);
		fclose(file);
		verdict_count = 0;
		srdma_tls_server_check(&options, note, verdicts);
		expect("revocation list", expired ? SRDMA_CHECK_WARN : SRDMA_CHECK_OK, expired ? "expired on " : "are valid");
		ASN1_TIME_free(at);
		X509_CRL_free(list);
	}
	drop(&own);
	drop(&ca);
}

RUN_TESTS(enter_directory, leave_directory)
