/* SPDX-License-Identifier: Apache-2.0 */
/* Verdicts on certificates of all kinds; the test makes the files itself, since no command makes some of them. */
#include "test.h"

#include "folder.h"
#include "pki.h"

#include "securdma_cert.h"

/* ---- certificates ---------------------------------------------------------------------------------------------- */

static const struct pki_request root_request = {.name = "root", .ca = true, .to = 100 * DAY};

/* A server's, of this CA. */
static struct pki_request leaf_of(const struct pki *issuer)
{
	return (struct pki_request){
		.name = "leaf", .issuer = issuer, .extended = "serverAuth", .names = "DNS:host.example", .to = 100 * DAY};
}

static struct pki ca, own; /* made for each test: own.crt and own.key */

static int make_own(void **state)
{
	if (enter_folder(state) != 0)
		return -1;
	ca = pki_make(root_request);
	own = pki_make(leaf_of(&ca));
	pki_save("own", &own);
	return 0;
}

static int remove_own(void **state)
{
	pki_free_all();
	return leave_folder(state);
}

/* ---- verdicts -------------------------------------------------------------------------------------------------- */

static struct {
	char what[32], text[512];
	enum srdma_check_result result;
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
	verdicts[verdict_count++].result = check->result;
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

static int check_own(enum srdma_cert_kind kind, const char *ca_file)
{
	verdict_count = 0;
	return srdma_cert_check(kind, "own.crt", "own.key", ca_file, note, verdicts);
}

/* Another certificate of the CA's, in the place of the test's own. */
static int check_other(struct pki_request request, enum srdma_cert_kind kind)
{
	own = pki_make(request);
	pki_save("own", &own);
	return check_own(kind, NULL);
}

/* ---- the own certificate ----------------------------------------------------------------------------------------- */

TEST(dates_are_judged)
{
	static const struct {
		long from, to;
		enum srdma_check_result result;
		const char *text;
	} cases[] = {
		{-DAY, 100 * DAY, SRDMA_CHECK_OK, "is valid until"},
		{-DAY, 31 * DAY + 7200, SRDMA_CHECK_OK, "is valid until"},
		{-DAY, 29 * DAY + 7200, SRDMA_CHECK_WARN, "expires in 29 days"},
		{-DAY, 3600, SRDMA_CHECK_WARN, "expires in 0 days"},
		{-2 * DAY, -60, SRDMA_CHECK_FAIL, "expired on "},
		{3600, 100 * DAY, SRDMA_CHECK_WARN, "is not valid before "},
		/* Waiting does not help. */
		{-200 * DAY, -100 * DAY, SRDMA_CHECK_FAIL, "expired on "},
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct pki_request request = leaf_of(&ca);

		request.from = cases[i].from;
		request.to = cases[i].to;
		assert_int_equal(check_other(request, SRDMA_CERT_SERVER), cases[i].result == SRDMA_CHECK_FAIL ? SRDMA_ECONFIG : 0);
		expect("certificate", cases[i].result, cases[i].text);
		expect("key", SRDMA_CHECK_OK, "own.key is the key of own.crt");
		expect("key file", SRDMA_CHECK_OK, "mode 0600");
	}
}

TEST(purposes_and_names_are_judged_for_each_end)
{
	static const enum srdma_cert_kind server = SRDMA_CERT_SERVER, client = SRDMA_CERT_CLIENT;
	static const char host[] = "DNS:host.example", no_name[] = "contains no DNS name or IP address";
	const struct {
		enum srdma_cert_kind kind; /* the end that is to use it */
		const char *purposes, *names;
		enum srdma_check_result result;
		const char *text;
	} cases[] = {
		{client, "serverAuth", host, SRDMA_CHECK_FAIL, "is a server certificate, and cannot be used by a client"},
		{client, "clientAuth", host, SRDMA_CHECK_OK, "is valid"},
		{server, "clientAuth", host, SRDMA_CHECK_FAIL, "is a client certificate"},
		{server, "codeSigning", host, SRDMA_CHECK_FAIL, "is a certificate for another purpose"},
		/* A certificate that names no purpose, or both, is good for both. */
		{server, NULL, host, SRDMA_CHECK_OK, "is valid"},
		{client, NULL, host, SRDMA_CHECK_OK, "is valid"},
		{server, "serverAuth,clientAuth", host, SRDMA_CHECK_OK, "is valid"},
		{client, "serverAuth,clientAuth", host, SRDMA_CHECK_OK, "is valid"},
		/* A client checks the server's names only. */
		{server, "serverAuth", NULL, SRDMA_CHECK_WARN, no_name},
		{server, "serverAuth", "email:a@example.com", SRDMA_CHECK_WARN, no_name},
		{server, "serverAuth", "IP:192.0.2.1", SRDMA_CHECK_OK, "is valid"},
		{client, "clientAuth", NULL, SRDMA_CHECK_OK, "is valid"},
	};
	struct pki_request request = leaf_of(&ca);

	for (size_t i = 0; i < COUNT(cases); i++) {
		request.extended = cases[i].purposes;
		request.names = cases[i].names;
		assert_int_equal(check_other(request, cases[i].kind), cases[i].result == SRDMA_CHECK_FAIL ? SRDMA_ECONFIG : 0);
		expect("certificate", cases[i].result, cases[i].text);
		if (i == 0)
			assert_error_says("give a client certificate");
	}
	/* The worst verdict counts, not the first. */
	request = leaf_of(&ca);
	request.to = 5 * DAY;
	assert_int_equal(check_other(request, SRDMA_CERT_CLIENT), SRDMA_ECONFIG);
	expect("certificate", SRDMA_CHECK_FAIL, "is a server certificate");
}

TEST(mode_of_the_key_file_is_judged)
{
	static const struct {
		mode_t mode;
		enum srdma_check_result result;
		const char *text;
	} cases[] = {
		{0644, SRDMA_CHECK_WARN, "other users can read the private key"},
		{0660, SRDMA_CHECK_WARN, "other users can replace the private key"},
		/* A service's key often belongs to root, and the service's group reads it. */
		{0640, SRDMA_CHECK_OK, "mode 0640"},
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		assert_int_equal(chmod("own.key", cases[i].mode), 0);
		assert_int_equal(check_own(SRDMA_CERT_SERVER, NULL), 0);
		expect("key file", cases[i].result, cases[i].text);
	}
}

TEST(key_is_judged)
{
	pki_write_key("own.key", &ca);
	assert_int_equal(check_own(SRDMA_CERT_SERVER, NULL), SRDMA_ECONFIG);
	expect("key", SRDMA_CHECK_FAIL, "own.key is not the private key of own.crt");
	expect("certificate", SRDMA_CHECK_OK, "is valid");
	remove("own.key");
	assert_int_equal(check_own(SRDMA_CERT_SERVER, NULL), -ENOENT);
	expect("key", SRDMA_CHECK_FAIL, "own.key");
	remove("own.crt");
	assert_int_equal(check_own(SRDMA_CERT_SERVER, NULL), -ENOENT);
	expect("certificate", SRDMA_CHECK_FAIL, "own.crt");
}

TEST(chain_is_judged)
{
	struct pki_request request = {.name = "middle", .issuer = &ca, .ca = true, .to = 100 * DAY};
	struct pki middle = pki_make(request), other = pki_make(root_request), leaf = pki_make(leaf_of(&middle));

	PKI_WRITE("ca.crt", &ca);
	PKI_WRITE("other.crt", &other);
	pki_save_chain("own", &leaf, &middle);
	assert_int_equal(check_own(SRDMA_CERT_SERVER, "ca.crt"), 0);
	expect("certificate chain", SRDMA_CHECK_OK, "own.crt can be verified with ca.crt");
	assert_int_equal(check_own(SRDMA_CERT_SERVER, "other.crt"), SRDMA_ECONFIG);
	expect("certificate chain", SRDMA_CHECK_FAIL, "own.crt cannot be verified with other.crt");
	/* The one in between is missing. */
	PKI_WRITE("own.crt", &leaf);
	assert_int_equal(check_own(SRDMA_CERT_SERVER, "ca.crt"), SRDMA_ECONFIG);
	expect("certificate chain", SRDMA_CHECK_FAIL, "own.crt cannot be verified with ca.crt");
	/* Another certificate is in its place, and it follows. */
	PKI_WRITE("own.crt", &leaf, &ca, &middle);
	assert_int_equal(check_own(SRDMA_CERT_SERVER, NULL), 0);
	expect("certificate chain", SRDMA_CHECK_WARN, "certificate 2 in own.crt (CN=root) has not issued the one before it");
	request.from = -2 * DAY;
	request.to = -60;
	middle = pki_make(request);
	leaf = pki_make(leaf_of(&middle));
	pki_save_chain("own", &leaf, &middle);
	assert_int_equal(check_own(SRDMA_CERT_SERVER, NULL), 0);
	expect("certificate chain", SRDMA_CHECK_WARN, "certificate 2 in own.crt (CN=middle), of a CA, has expired");
}

/* ---- the CAs of the peers ---------------------------------------------------------------------------------------- */

static struct srdma_tls_server_options server_options(void)
{
	return (struct srdma_tls_server_options){
		.size = sizeof(struct srdma_tls_server_options), .cert_file = "own.crt", .key_file = "own.key"};
}

static int check_server(struct srdma_tls_server_options options)
{
	verdict_count = 0;
	return srdma_tls_server_check(&options, note, verdicts);
}

TEST(cas_are_judged)
{
	struct pki_request old = root_request, early = root_request, weak = root_request, client = leaf_of(&ca);
	struct pki expired, early_ca, short_key, client_leaf;
	struct srdma_tls_server_options options = server_options();

	old.from = -2 * DAY;
	old.to = -60;
	early.from = 3600;
	weak.key = EVP_RSA_gen(1024);
	client.extended = "clientAuth";
	expired = pki_make(old);
	early_ca = pki_make(early);
	short_key = pki_make(weak);
	client_leaf = pki_make(client);
	const struct {
		const struct pki *cas[2];
		bool anonymous; /* some clients can still come */
		enum srdma_check_result result;
		const char *text;
	} cases[] = {
		{{&ca}, false, SRDMA_CHECK_OK, "clients.crt (CN=root) is valid until"},
		{{&ca, &ca}, false, SRDMA_CHECK_OK, "clients.crt has 2 CA certificates"},
		{{&expired}, false, SRDMA_CHECK_FAIL, "expired on "},
		{{&expired}, true, SRDMA_CHECK_WARN, "expired on "},
		{{&ca, &expired}, false, SRDMA_CHECK_WARN, "expired on "},
		{{&own}, false, SRDMA_CHECK_FAIL, "clients.crt (CN=leaf) is not a CA certificate: no client can be verified with it"},
		{{&client_leaf}, false, SRDMA_CHECK_WARN, "it verifies only the client that has this certificate"},
		{{&early_ca}, false, SRDMA_CHECK_WARN, "is not valid yet"},
		{{&short_key}, false, SRDMA_CHECK_WARN, "a key so short that TLS does not accept it"},
	};

	options.client_ca_file = "clients.crt";
	for (size_t i = 0; i < COUNT(cases); i++) {
		int ret;

		pki_write("clients.crt", cases[i].cas, cases[i].cas[1] ? 2 : 1);
		options.insecure_anonymous_clients = cases[i].anonymous;
		ret = check_server(options);
		expect("client CA", cases[i].result, cases[i].text);
		/* Loading a CA whose key is too short may fail. */
		if (cases[i].cas[0] != &short_key)
			assert_int_equal(ret, cases[i].result == SRDMA_CHECK_FAIL ? SRDMA_ECONFIG : 0);
	}
}

/* The check ends with loading the files, which finds faults that reading them does not. */
TEST(check_fails_where_the_context_would)
{
	struct srdma_tls_server_options options = server_options();
	struct srdma_tls_client_options client = {.size = sizeof client, .pin = "sha256:1"};

	assert_int_equal(check_server(options), SRDMA_ECONFIG);
	expect("credentials", SRDMA_CHECK_FAIL, "--client-ca");
	assert_int_equal(srdma_tls_server_check(&options, NULL, NULL), SRDMA_ECONFIG);
	verdict_count = 0;
	assert_int_equal(srdma_tls_client_check(&client, note, verdicts), -EINVAL);
	expect("credentials", SRDMA_CHECK_FAIL, "sha256:1");
	assert_int_equal(srdma_cert_check(SRDMA_CERT_CA, "own.crt", NULL, NULL, NULL, NULL), -EINVAL);
}

TEST(expired_list_is_warned_of)
{
	struct srdma_tls_server_options options = server_options();

	PKI_WRITE("clients.crt", &ca);
	options.client_ca_file = "clients.crt";
	options.client_crl_file = "list.pem";
	for (int expired = 0; expired < 2; expired++) {
		pki_write_list("list.pem", "w", (struct pki_list){.issuer = &ca, .from = -100, .to = expired ? -50 : 1000});
		check_server(options);
		expect("revocation list", expired ? SRDMA_CHECK_WARN : SRDMA_CHECK_OK, expired ? "expired on " : "are valid");
	}
}

RUN_TESTS_EACH(make_own, remove_own)
