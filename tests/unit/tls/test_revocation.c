/* SPDX-License-Identifier: Apache-2.0 */
/* Chains, trust in their certificates, and revocation lists, at both ends, in handshakes. The PKI: a root, an intermediate CA below it, a
 * server's and a client's certificate from that one, and a second intermediate. */
#include "test.h"

#include "pki.h"
#include "tls_pair.h"

#define HOST "host.example.com"

static struct pki root, middle, other, server, client, stranger, other_root;

static int make_files(void **state)
{
	if (enter_folder(state) != 0)
		return -1;
	root = pki_make((struct pki_request){.name = "Root", .ca = true});
	middle = pki_make((struct pki_request){.name = "Middle", .issuer = &root, .ca = true});
	other = pki_make((struct pki_request){.name = "Other", .issuer = &root, .ca = true});
	server = pki_make((struct pki_request){.name = "server", .issuer = &middle, .extended = "serverAuth", .names = "DNS:" HOST});
	client = pki_make((struct pki_request){.name = "alice", .issuer = &middle, .extended = "clientAuth"});
	stranger = pki_make((struct pki_request){.name = "bob", .issuer = &other, .extended = "clientAuth"});
	other_root = pki_make((struct pki_request){.name = "Root", .ca = true}); /* the same name, another key */
	PKI_WRITE("root.crt", &root);
	PKI_WRITE("middle.crt", &middle);
	PKI_WRITE("both.crt", &middle, &root);
	PKI_WRITE("bare-client.crt", &client);
	pki_save_chain("server", &server, &middle);
	pki_save_chain("client", &client, &middle);
	pki_save_chain("stranger", &stranger, &other);
	return 0;
}

static int remove_files(void **state)
{
	pki_free_all();
	return leave_folder(state);
}

/* ---- both ends ------------------------------------------------------------------------------------------------- */

static struct end server_with(const char *ca, const char *crl, bool require_all)
{
	return ours_server((struct srdma_tls_server_options){
		.size = sizeof(struct srdma_tls_server_options),
		.cert_file = "server.crt", .key_file = "server.key", .client_ca_file = ca, .client_crl_file = crl, .crl_require_all = require_all});
}

static struct end client_with(const char *ca, const char *crl, bool require_all)
{
	return ours_client((struct srdma_tls_client_options){
		.size = sizeof(struct srdma_tls_client_options),
		.cert_file = "client.crt", .key_file = "client.key", .ca_file = ca, .crl_file = crl, .crl_require_all = require_all});
}

/* Shows this certificate, with its chain, and trusts the root. */
static struct end plain_client(const char *cert, const char *key)
{
	return ours_client((struct srdma_tls_client_options){
		.size = sizeof(struct srdma_tls_client_options), .cert_file = cert, .key_file = key, .ca_file = "root.crt"});
}

/* With this at one end, and at the other one the root alone. */
static void assert_accepted(const char *ca, const char *crl, bool require_all)
{
	assert_meets(client_with("root.crt", NULL, false), server_with(ca, crl, require_all), HOST);
	assert_meets(client_with(ca, crl, require_all), server_with("root.crt", NULL, false), HOST);
}

static void assert_refused(const char *ca, const char *crl, bool require_all, const char *words)
{
	assert_server_refuses(client_with("root.crt", NULL, false), server_with(ca, crl, require_all), SRDMA_ECERT, words);
	assert_client_refuses(client_with(ca, crl, require_all), server_with("root.crt", NULL, false), HOST, SRDMA_ECERT, words);
}

static void assert_no_context(const char *ca, const char *crl, const char *words)
{
	struct srdma_tls_server_options so = {.size = sizeof so,
					      .cert_file = "server.crt",
					      .key_file = "server.key",
					      .client_ca_file = ca,
					      .client_crl_file = crl};
	struct srdma_tls_client_options co = {.size = sizeof co, .ca_file = ca, .crl_file = crl};

	assert_int_equal(try_server(so), SRDMA_ECONFIG);
	assert_error_says(words);
	assert_int_equal(try_client(co), SRDMA_ECONFIG);
	assert_error_says(words);
}

static void write_lists(const struct pki_list *lists, size_t count)
{
	for (size_t i = 0; i < count; i++)
		pki_write_list("lists.crl", i == 0 ? "w" : "a", lists[i]);
}

/* Into lists.crl, each as the members of its struct pki_list. */
#define LISTS(...) write_lists((const struct pki_list[]){__VA_ARGS__}, COUNT(((const struct pki_list[]){__VA_ARGS__})))

/* ---- the whole chain ------------------------------------------------------------------------------------------- */

TEST(leaf_of_a_revoked_intermediate_is_refused)
{
	static const char *const trusted[] = {"root.crt", "both.crt", "middle.crt"};

	LISTS({.issuer = &root, .revoked = {&middle}}, {.issuer = &middle});
	/* Also where the file of the CAs has it: its issuer's list still counts. */
	for (size_t i = 0; i < COUNT(trusted); i++) {
		assert_refused(trusted[i], "lists.crl", false, "revoked");
		assert_refused(trusted[i], "lists.crl", true, "revoked");
	}
	LISTS({.issuer = &root, .revoked = {&other}}, {.issuer = &middle});
	for (size_t i = 0; i < COUNT(trusted); i++)
		assert_accepted(trusted[i], "lists.crl", true);
}

/* A chain ends at the first certificate that is trusted; its CAs, trusted as well, have their say about each other. */
TEST(cas_above_a_trusted_one_are_looked_up)
{
	struct pki lower = pki_make((struct pki_request){.name = "Lower", .issuer = &middle, .ca = true});
	struct pki leaf = pki_make((struct pki_request){.name = "x", .issuer = &lower, .extended = "clientAuth"});

	pki_save_chain("leaf", &leaf, &lower);
	PKI_WRITE("all.crt", &lower, &middle, &root);
	LISTS({.issuer = &lower}, {.issuer = &middle}, {.issuer = &root, .revoked = {&middle}});
	assert_server_refuses(plain_client("leaf.crt", "leaf.key"), server_with("all.crt", "lists.crl", false), SRDMA_ECERT,
			      "revoked by its CA ('CN=Middle', issued by 'CN=Root')");
	LISTS({.issuer = &lower}, {.issuer = &root, .from = -3 * DAY, .to = -DAY});
	assert_server_refuses(plain_client("leaf.crt", "leaf.key"), server_with("all.crt", "lists.crl", false), SRDMA_ECERT, "CRL has expired");
	/* None of their lists is required. */
	LISTS({.issuer = &lower});
	assert_meets(plain_client("leaf.crt", "leaf.key"), server_with("all.crt", "lists.crl", true), HOST);
}

static void leave_issuers_key_out(X509 *cert)
{
	X509_EXTENSION_free(X509_delete_ext(cert, X509_get_ext_by_NID(cert, NID_authority_key_identifier, -1)));
}

/* Of two CAs with one name, the issuer is the one whose key has signed, in any order. */
TEST(ca_above_a_trusted_one_is_known_by_its_key)
{
	struct pki lower = pki_make((struct pki_request){.name = "Plain", .issuer = &root, .ca = true, .change = leave_issuers_key_out});
	struct pki leaf = pki_make((struct pki_request){.name = "x", .issuer = &lower, .extended = "clientAuth"});

	pki_save_chain("leaf", &leaf, &lower);
	PKI_WRITE("namesakes.crt", &lower, &other_root, &root);
	LISTS({.issuer = &lower}, {.issuer = &root, .revoked = {&lower}});
	assert_server_refuses(plain_client("leaf.crt", "leaf.key"), server_with("namesakes.crt", "lists.crl", false), SRDMA_ECERT,
			      "revoked by its CA ('CN=Plain', issued by 'CN=Root')");
	LISTS({.issuer = &lower}, {.issuer = &root, .revoked = {&middle}});
	assert_meets(plain_client("leaf.crt", "leaf.key"), server_with("namesakes.crt", "lists.crl", false), HOST);
}

TEST(refusal_names_the_revoked_certificate)
{
	LISTS({.issuer = &root, .revoked = {&middle}}, {.issuer = &middle});
	assert_refused("root.crt", "lists.crl", false, "'CN=Middle', issued by 'CN=Root'");
	LISTS({.issuer = &middle, .revoked = {&client, &server}});
	assert_refused("root.crt", "lists.crl", false, "issued by 'CN=Middle'");
}

TEST(revoked_leaf_is_refused_and_others_are_not)
{
	LISTS({.issuer = &middle, .revoked = {&client}});
	assert_server_refuses(client_with("root.crt", NULL, false), server_with("root.crt", "lists.crl", false), SRDMA_ECERT, "revoked");
	assert_meets(client_with("root.crt", "lists.crl", false), server_with("root.crt", NULL, false), HOST);
	LISTS({.issuer = &middle, .revoked = {&client}}, {.issuer = &other});
	assert_meets(plain_client("stranger.crt", "stranger.key"), server_with("root.crt", "lists.crl", false), HOST);
}

TEST(list_that_is_missing)
{
	/* The list of the issuer of the peer's own certificate is always required. */
	LISTS({.issuer = &root});
	assert_refused("root.crt", "lists.crl", false, "no revocation list");
	/* The list of a CA above is required only with crl_require_all. */
	LISTS({.issuer = &middle});
	assert_accepted("root.crt", "lists.crl", false);
	assert_refused("root.crt", "lists.crl", true, "no revocation list");
	/* A certificate that is trusted itself needs no list. */
	assert_accepted("middle.crt", "lists.crl", true);
}

TEST(list_that_is_not_in_force_lets_nobody_through)
{
	static const char *const trusted[] = {"root.crt", "both.crt", "middle.crt"};

	for (size_t i = 0; i < COUNT(trusted); i++) {
		LISTS({.issuer = &root, .from = -3 * DAY, .to = -DAY}, {.issuer = &middle});
		assert_refused(trusted[i], "lists.crl", false, "CRL has expired");
		LISTS({.issuer = &root, .from = DAY}, {.issuer = &middle});
		assert_refused(trusted[i], "lists.crl", false, "CRL is not valid yet");
	}
	LISTS({.issuer = &root}, {.issuer = &middle, .from = -3 * DAY, .to = -DAY});
	assert_refused("root.crt", "lists.crl", false, "CRL has expired");
}

TEST(newest_list_in_force_counts)
{
	LISTS({.issuer = &middle, .from = -2 * DAY, .revoked = {&client, &server}},
	      {.issuer = &middle, .from = -DAY},
	      {.issuer = &middle, .from = -5 * DAY, .to = -4 * DAY},
	      {.issuer = &middle, .from = DAY});
	assert_accepted("root.crt", "lists.crl", false);
	LISTS({.issuer = &middle, .from = -DAY, .revoked = {&client, &server}}, {.issuer = &middle, .from = -2 * DAY});
	assert_refused("root.crt", "lists.crl", false, "revoked");
}

/* ---- the issuer of a list -------------------------------------------------------------------------------------- */

TEST(list_that_its_ca_has_not_signed_is_refused)
{
	/* The CA is known: at once. */
	LISTS({.issuer = &root, .signer = &other}, {.issuer = &middle});
	assert_no_context("root.crt", "lists.crl", "'CN=Root' is not signed by the CA of that name");
	LISTS({.issuer = &other_root});
	assert_no_context("root.crt", "lists.crl", "is not signed by the CA of that name");
	/* It comes with the peer's chain: then. */
	LISTS({.issuer = &middle, .signer = &other});
	assert_refused("root.crt", "lists.crl", false, "no revocation list");
	LISTS({.issuer = &middle, .signer = &other, .key_id = &middle});
	assert_refused("root.crt", "lists.crl", false, "no revocation list");
	LISTS({.issuer = &middle, .signer = &other, .no_key_id = true});
	assert_refused("root.crt", "lists.crl", false, "no revocation list");
	LISTS({.issuer = &middle, .no_key_id = true});
	assert_accepted("root.crt", "lists.crl", false);
}

/* Lists can be long: an end reads them only for a peer whose certificate the CA has signed. */
TEST(signatures_of_the_chain_come_before_the_lists)
{
	struct pki forger = pki_make((struct pki_request){.name = "Middle", .issuer = &root, .ca = true});
	struct pki forged = pki_make((struct pki_request){.name = "alice", .issuer = &middle, .extended = "clientAuth"});
	struct end raw;

	LISTS({.issuer = &middle, .from = -3 * DAY, .to = -DAY});
	assert_true(X509_sign(forged.cert, forger.key, EVP_sha256()) > 0);
	raw = raw_end(false, &forged);
	assert_int_equal(SSL_CTX_add_extra_chain_cert(raw.raw_context, X509_dup(middle.cert)), 1);
	assert_server_refuses(raw, server_with("root.crt", "lists.crl", false), SRDMA_ECERT, "signature failure");
}

TEST(two_cas_of_one_name_have_each_their_list)
{
	PKI_WRITE("two.crt", &other_root, &root);
	LISTS({.issuer = &other_root}, {.issuer = &root, .revoked = {&middle}}, {.issuer = &middle});
	assert_refused("two.crt", "lists.crl", false, "revoked");
	LISTS({.issuer = &other_root, .revoked = {&middle}}, {.issuer = &root}, {.issuer = &middle});
	assert_accepted("two.crt", "lists.crl", false);
}

TEST(ca_that_may_sign_no_lists_has_none)
{
	struct pki narrow = pki_make((struct pki_request){.name = "Narrow", .issuer = &root, .ca = true, .usage = "critical,keyCertSign"});
	struct pki leaf = pki_make((struct pki_request){.name = "x", .issuer = &narrow, .extended = "clientAuth"});

	pki_save_chain("leaf", &leaf, &narrow);
	LISTS({.issuer = &narrow});
	assert_server_refuses(plain_client("leaf.crt", "leaf.key"), server_with("root.crt", "lists.crl", false), SRDMA_ECERT, "CRL");
}

TEST(lists_beside_the_cas_count_too)
{
	PKI_WRITE("with-lists.crt", &root);
	pki_write_list("with-lists.crt", "a", (struct pki_list){.issuer = &root, .revoked = {&middle}});
	pki_write_list("with-lists.crt", "a", (struct pki_list){.issuer = &middle});
	assert_refused("with-lists.crt", NULL, false, "revoked");
}

/* ---- lists that are not whole ---------------------------------------------------------------------------------- */

/* An extension that a test adds to a list, or to an entry in it. */
struct extension {
	const char *oid;
	bool critical, of_entry;
	const char *der;
	int length;
};

static void extend_entry(X509_CRL *crl, X509_EXTENSION *extension)
{
	X509_REVOKED *entry = X509_REVOKED_new();
	ASN1_INTEGER *serial = ASN1_INTEGER_new();
	ASN1_TIME *when = X509_gmtime_adj(NULL, -7200);

	ASN1_INTEGER_set(serial, 7);
	X509_REVOKED_set_serialNumber(entry, serial);
	X509_REVOKED_set_revocationDate(entry, when);
	X509_REVOKED_add_ext(entry, extension, -1);
	X509_CRL_add0_revoked(crl, entry);
	ASN1_INTEGER_free(serial);
	ASN1_TIME_free(when);
}

static void extend(X509_CRL *crl, const struct extension *e)
{
	X509_EXTENSION *extension = pki_extension(e->oid, e->critical, e->der, e->length);

	if (e->of_entry)
		extend_entry(crl, extension);
	else
		X509_CRL_add_ext(crl, extension, -1);
	X509_EXTENSION_free(extension);
}

static const struct extension *extra; /* of the next list that add_extra changes */

static void add_extra(X509_CRL *crl)
{
	extend(crl, extra);
}

#define DELTA "2.5.29.27"
#define POINT "2.5.29.28"

TEST(list_that_is_not_whole_is_refused_by_name)
{
	static const struct {
		struct extension extension;
		const char *words;
	} cases[] = {
		{{DELTA, true, false, "\x02\x01\x01", 3}, "X509v3 Delta CRL Indicator (2.5.29.27)"},
		{{DELTA, false, false, "\x02\x01\x01", 3}, "X509v3 Delta CRL Indicator"},
		/* An indirect list; lists of users, of CAs and of some reasons only; of one distribution point; a malformed one. */
		{{POINT, true, false, "\x30\x03\x84\x01\xff", 5}, "X509v3 Issuing Distribution Point (2.5.29.28)"},
		{{POINT, true, false, "\x30\x03\x81\x01\xff", 5}, "X509v3 Issuing Distribution Point"},
		{{POINT, true, false, "\x30\x03\x82\x01\xff", 5}, "X509v3 Issuing Distribution Point"},
		{{POINT, true, false, "\x30\x04\x83\x02\x05\x20", 6}, "X509v3 Issuing Distribution Point"},
		{{POINT, true, false, "\x30\x0f\xa0\x0d\xa0\x0b\x86\x09http://a/", 17}, "X509v3 Issuing Distribution Point"},
		{{POINT, true, false, "\x04\x00", 2}, "X509v3 Issuing Distribution Point"},
		{{"1.2.3.4.5", true, false, "\x05\x00", 2}, "its extension 1.2.3.4.5 is critical"},
		{{"2.5.29.29", true, true, "\x30\x00", 2}, "X509v3 Certificate Issuer (2.5.29.29) assigns an entry to another CA"},
		{{"1.2.3.4.6", true, true, "\x30\x00", 2}, "its extension 1.2.3.4.6 of an entry is critical"},
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		extra = &cases[i].extension;
		LISTS({.issuer = &middle, .change = add_extra});
		assert_no_context("root.crt", "lists.crl", cases[i].words);
		assert_error_says("lists.crl: the revocation list of 'CN=Middle' is not complete");
		/* Also when a whole one is before it. */
		LISTS({.issuer = &middle}, {.issuer = &middle, .change = add_extra});
		assert_no_context("root.crt", "lists.crl", cases[i].words);
	}
	LISTS({.issuer = &middle, .to = LONG_MIN});
	assert_no_context("root.crt", "lists.crl", "has no date of the next update");
}

static void add_harmless(X509_CRL *crl)
{
	static const struct extension harmless[] = {
		{"2.5.29.20", false, false, "\x02\x01\x05", 3}, /* the list's number */
		{POINT, true, false, "\x30\x00", 2},            /* a distribution point that narrows nothing down */
		{"1.2.3.4.5", false, false, "\x05\x00", 2},
		{"2.5.29.46", false, false, "\x30\x00", 2}, /* where newer lists are */
		{"1.2.3.4.6", false, true, "\x30\x00", 2},
	};

	for (size_t i = 0; i < COUNT(harmless); i++)
		extend(crl, &harmless[i]);
}

TEST(whole_list_with_more_in_it_is_taken)
{
	LISTS({.issuer = &middle, .change = add_harmless});
	assert_accepted("root.crt", "lists.crl", false);
	LISTS({.issuer = &middle, .change = add_harmless, .revoked = {&client, &server}});
	assert_refused("root.crt", "lists.crl", false, "revoked");
}

/* ---- trust ----------------------------------------------------------------------------------------------------- */

TEST(intermediate_is_trusted_for_what_it_issues_and_for_nothing_else)
{
	assert_accepted("middle.crt", NULL, false);
	assert_server_refuses(plain_client("stranger.crt", "stranger.key"), server_with("middle.crt", NULL, false), SRDMA_ECERT,
			      "no CA in the CA file");
	/* A client need not send the CA that the server trusts. */
	assert_meets(plain_client("bare-client.crt", "client.key"), server_with("middle.crt", NULL, false), HOST);
	/* Without it the issuer is unknown. */
	assert_server_refuses(raw_end(false, &client), server_with("root.crt", NULL, false), SRDMA_ECERT, "no CA in the CA file");
}

TEST(certificate_that_is_no_ca_is_trusted_for_itself_alone)
{
	struct pki below = pki_make((struct pki_request){.name = "below", .issuer = &client, .extended = "clientAuth"});
	struct pki fake = pki_make((struct pki_request){.name = "host", .issuer = &server, .extended = "serverAuth", .names = "DNS:" HOST});
	struct srdma_tls_server_options so = {
		.size = sizeof so, .cert_file = "fake.crt", .key_file = "fake.key", .client_ca_file = "root.crt"};

	PKI_WRITE("leaf.crt", &client);
	PKI_WRITE("server-leaf.crt", &server);
	pki_save_chain("below", &below, &client);
	pki_save_chain("fake", &fake, &server);
	assert_meets(client_with("root.crt", NULL, false), server_with("leaf.crt", NULL, false), HOST);
	assert_server_refuses(plain_client("below.crt", "below.key"), server_with("leaf.crt", NULL, false), SRDMA_ECERT, "CA");
	assert_server_refuses(plain_client("stranger.crt", "stranger.key"), server_with("leaf.crt", NULL, false), SRDMA_ECERT, "");
	assert_client_refuses(client_with("server-leaf.crt", NULL, false), ours_server(so), HOST, SRDMA_ECERT, "CA");
	/* Nor does it stand for another name. */
	assert_client_refuses(client_with("server-leaf.crt", NULL, false), server_with("root.crt", NULL, false), "other.example.com", SRDMA_ECERT,
			      "not for this name");
}

TEST(trusted_certificate_still_expires_and_has_its_purpose)
{
	struct pki old = pki_make((struct pki_request){.name = "old", .issuer = &root, .ca = true, .from = -3 * DAY, .to = -DAY});
	struct pki leaf = pki_make((struct pki_request){.name = "x", .issuer = &old, .extended = "clientAuth"});

	PKI_WRITE("old.crt", &old);
	pki_save_chain("leaf", &leaf, &old);
	assert_server_refuses(plain_client("leaf.crt", "leaf.key"), server_with("old.crt", NULL, false), SRDMA_ECERT, "expired");
	/* A server's certificate, itself trusted, shown as a client's. */
	PKI_WRITE("leaf.crt", &server);
	assert_server_refuses(plain_client("server.crt", "server.key"), server_with("leaf.crt", NULL, false), SRDMA_ECERT, "purpose");
}

TEST(pin_and_lists_must_both_hold)
{
	struct srdma_tls_client_options co = {
		.size = sizeof co, .cert_file = "client.crt", .key_file = "client.key", .ca_file = "root.crt", .crl_file = "lists.crl"};
	struct srdma_cert_info info;

	assert_int_equal(srdma_cert_read("server.crt", &info), 0);
	co.pin = info.pin;
	LISTS({.issuer = &root, .revoked = {&middle}}, {.issuer = &middle});
	assert_client_refuses(ours_client(co), server_with("root.crt", NULL, false), HOST, SRDMA_ECERT, "revoked");
}

RUN_TESTS(make_files, remove_files)
