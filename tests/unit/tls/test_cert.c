/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "folder.h"
#include "pki.h"

#include "cert.h"

#include <dirent.h>

static int leave_and_free(void **state)
{
	pki_free_all();
	return leave_folder(state);
}

/* How many files the working directory holds, temporary ones included. */
static int count_files(void)
{
	DIR *directory = opendir(".");
	int count = -2;

	assert_non_null(directory);
	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

static const char *const names[] = {"host.example.com", "*.apps.example.com", "192.0.2.7", "2001:db8::1"};

/* Members of good requests. A test overrides some of them behind it. */
#define CA_REQUEST                                                                                                     \
	.size = sizeof(struct srdma_cert_request), .kind = SRDMA_CERT_CA, .common_name = "Test CA", .days = 30,        \
	.cert_file = "ca.crt", .key_file = "ca.key"
#define ISSUED .size = sizeof(struct srdma_cert_request), .days = 10, .ca_cert_file = "ca.crt", .ca_key_file = "ca.key"
#define SERVER_REQUEST                                                                                                 \
	ISSUED, .kind = SRDMA_CERT_SERVER, .common_name = "host.example.com", .names = names,                          \
	.name_count = COUNT(names), .cert_file = "server.crt", .key_file = "server.key"
#define CLIENT_REQUEST                                                                                                 \
	ISSUED, .kind = SRDMA_CERT_CLIENT, .common_name = "alice", .cert_file = "client.crt", .key_file = "client.key"
#define SELF_SIGNED_REQUEST SERVER_REQUEST, .kind = SRDMA_CERT_SELF_SIGNED, .ca_cert_file = NULL, .ca_key_file = NULL

#define TRY(...)  srdma_cert_make(&(struct srdma_cert_request){__VA_ARGS__})
#define MAKE(...) make((struct srdma_cert_request){__VA_ARGS__})

static void make(struct srdma_cert_request request)
{
	if (srdma_cert_make(&request) != 0)
		fail_msg("%s: %s", request.cert_file, srdma_error_text());
}

/* NAME.crt and NAME.key. */
static struct pki load(const char *name)
{
	struct pki loaded;
	char path[64];
	FILE *file;

	snprintf(path, sizeof path, "%s.crt", name);
	file = fopen(path, "r");
	assert_non_null(file);
	loaded.cert = PEM_read_X509(file, NULL, NULL, NULL);
	fclose(file);
	snprintf(path, sizeof path, "%s.key", name);
	file = fopen(path, "r");
	assert_non_null(file);
	loaded.key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
	fclose(file);
	assert_true(loaded.cert && loaded.key);
	return pki_keep(loaded);
}

static char *slurp(const char *path)
{
	static char texts[4][8192];
	static int next;
	char *text = texts[next++ % 4];
	FILE *file = fopen(path, "r");
	size_t length;

	assert_non_null(file);
	length = fread(text, 1, 8191, file);
	text[length] = '\0';
	fclose(file);
	return text;
}

/* Verifies a chain as a TLS peer does; returns OpenSSL's X509_V_ code. */
static int verify(const char *ca_name, const char *name, int purpose)
{
	struct pki ca = load(ca_name), of = load(name);
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *context = X509_STORE_CTX_new();
	int result;

	assert_true(X509_STORE_add_cert(store, ca.cert));
	assert_true(X509_STORE_CTX_init(context, store, of.cert, NULL));
	X509_STORE_CTX_set_flags(context, X509_V_FLAG_X509_STRICT);
	X509_STORE_CTX_set_purpose(context, purpose);
	X509_verify_cert(context);
	result = X509_STORE_CTX_get_error(context);
	X509_STORE_CTX_free(context);
	X509_STORE_free(store);
	return result;
}

TEST(issued_certificates_verify_for_their_purpose_alone)
{
	struct pki ca, server;

	MAKE(CA_REQUEST);
	MAKE(SERVER_REQUEST);
	MAKE(CLIENT_REQUEST);
	assert_int_equal(verify("ca", "server", X509_PURPOSE_SSL_SERVER), X509_V_OK);
	assert_int_equal(verify("ca", "client", X509_PURPOSE_SSL_CLIENT), X509_V_OK);
	assert_int_equal(verify("ca", "client", X509_PURPOSE_SSL_SERVER), X509_V_ERR_INVALID_PURPOSE);
	assert_int_equal(verify("ca", "server", X509_PURPOSE_SSL_CLIENT), X509_V_ERR_INVALID_PURPOSE);
	ca = load("ca");
	server = load("server");
	assert_int_equal(X509_verify(server.cert, ca.key), 1);
	assert_int_equal(X509_verify(ca.cert, ca.key), 1);
	assert_int_equal(X509_check_private_key(server.cert, server.key), 1);
	assert_int_equal(EVP_PKEY_get_bits(server.key), 256);
	assert_int_equal(X509_get_signature_nid(server.cert), NID_ecdsa_with_SHA256);
}

TEST(certificate_of_another_ca_does_not_verify)
{
	MAKE(CA_REQUEST);
	MAKE(SERVER_REQUEST);
	MAKE(CA_REQUEST, .cert_file = "other.crt", .key_file = "other.key");
	assert_int_not_equal(verify("other", "server", X509_PURPOSE_SSL_SERVER), X509_V_OK);
}

TEST(server_certificate_bears_its_names_and_addresses)
{
	struct pki server;

	MAKE(CA_REQUEST);
	MAKE(SERVER_REQUEST);
	server = load("server");
	assert_int_equal(X509_check_host(server.cert, "host.example.com", 0, 0, NULL), 1);
	assert_int_equal(X509_check_host(server.cert, "a.apps.example.com", 0, 0, NULL), 1);
	assert_int_equal(X509_check_host(server.cert, "other.example.com", 0, 0, NULL), 0);
	assert_int_equal(X509_check_ip_asc(server.cert, "192.0.2.7", 0), 1);
	assert_int_equal(X509_check_ip_asc(server.cert, "2001:db8::1", 0), 1);
	assert_int_equal(X509_check_ip_asc(server.cert, "192.0.2.8", 0), 0);
	/* An address is no DNS name. */
	assert_int_equal(X509_check_host(server.cert, "192.0.2.7", 0, 0, NULL), 0);
}

TEST(extensions_are_critical_and_key_identifiers_match)
{
	const ASN1_OCTET_STRING *subject, *authority;
	struct pki ca, server;
	int critical;
	BASIC_CONSTRAINTS *constraints;

	MAKE(CA_REQUEST);
	MAKE(SERVER_REQUEST);
	ca = load("ca");
	server = load("server");
	constraints = X509_get_ext_d2i(ca.cert, NID_basic_constraints, &critical, NULL);
	assert_non_null(constraints);
	assert_true(constraints->ca);
	assert_int_equal(critical, 1);
	assert_int_equal(ASN1_INTEGER_get(constraints->pathlen), 0);
	BASIC_CONSTRAINTS_free(constraints);
	assert_int_equal(X509_get_key_usage(ca.cert), KU_KEY_CERT_SIGN | KU_CRL_SIGN);
	assert_int_equal(X509_get_key_usage(server.cert), KU_DIGITAL_SIGNATURE);
	assert_int_equal(X509_get_extended_key_usage(server.cert), XKU_SSL_SERVER);
	subject = X509_get0_subject_key_id(ca.cert);
	authority = X509_get0_authority_key_id(server.cert);
	assert_non_null(subject);
	assert_non_null(authority);
	assert_int_equal(ASN1_OCTET_STRING_cmp(subject, authority), 0);
	authority = X509_get0_authority_key_id(ca.cert);
	assert_non_null(authority);
	assert_int_equal(ASN1_OCTET_STRING_cmp(subject, authority), 0);
}

TEST(serials_are_positive_random_and_of_128_bits)
{
	struct srdma_cert_info first, second;

	MAKE(CA_REQUEST);
	assert_int_equal(srdma_cert_read("ca.crt", &first), 0);
	MAKE(CA_REQUEST, .overwrite = true);
	assert_int_equal(srdma_cert_read("ca.crt", &second), 0);
	assert_int_equal(strlen(first.serial), 32);
	assert_uint_in_range(first.serial[0], '4', '7');
	assert_string_not_equal(first.serial, second.serial);
	assert_string_not_equal(first.pin, second.pin);
}

TEST(self_signed_certificate_is_a_server_and_no_ca)
{
	struct srdma_cert_info info;
	unsigned char pin[SRDMA_PIN_SIZE], parsed[SRDMA_PIN_SIZE];
	struct pki server;

	MAKE(SELF_SIGNED_REQUEST);
	assert_int_equal(srdma_cert_read("server.crt", &info), 0);
	assert_true(info.self_signed);
	assert_true(info.server_auth);
	assert_false(info.is_ca);
	assert_string_equal(info.subject, info.issuer);
	server = load("server");
	assert_int_equal(srdma_cert_pin(server.cert, pin), 0);
	assert_int_equal(srdma_pin_parse(info.pin, parsed), 0);
	assert_memory_equal(pin, parsed, sizeof pin);
}

TEST(peer_certificate_is_good_for_both_ends)
{
	struct srdma_cert_info info;

	MAKE(CA_REQUEST);
	MAKE(SERVER_REQUEST, .kind = SRDMA_CERT_PEER);
	assert_int_equal(srdma_cert_read("server.crt", &info), 0);
	assert_true(info.server_auth && info.client_auth && !info.is_ca && !info.self_signed);
	assert_int_equal(srdma_cert_check(SRDMA_CERT_SERVER, "server.crt", "server.key", "ca.crt", NULL, NULL), 0);
	assert_int_equal(srdma_cert_check(SRDMA_CERT_CLIENT, "server.crt", "server.key", "ca.crt", NULL, NULL), 0);
	assert_int_equal(TRY(SERVER_REQUEST, .kind = SRDMA_CERT_PEER, .name_count = 0, .overwrite = true), -EINVAL);
}

TEST(self_signed_certificate_may_have_no_name)
{
	struct srdma_cert_info info;

	MAKE(SELF_SIGNED_REQUEST, .name_count = 0);
	assert_int_equal(srdma_cert_read("server.crt", &info), 0);
	assert_string_equal(info.names, "");
}

TEST(read_tells_what_the_certificate_says)
{
	struct srdma_cert_info info;
	int64_t now = (int64_t)time(NULL);

	MAKE(CA_REQUEST);
	MAKE(SERVER_REQUEST);
	assert_int_equal(srdma_cert_read("server.crt", &info), 0);
	assert_string_equal(info.subject, "CN=host.example.com");
	assert_string_equal(info.issuer, "CN=Test CA");
	assert_string_equal(info.common_name, "host.example.com");
	assert_string_equal(info.names, "DNS:host.example.com, DNS:*.apps.example.com, IP:192.0.2.7, IP:2001:db8::1");
	assert_string_equal(info.key, "EC prime256v1");
	assert_uint_in_range(info.not_before, now - 310, now - 299);
	assert_int_equal(info.not_after - info.not_before, 10 * 86400);
	assert_true(info.server_auth);
	assert_false(info.client_auth);
	assert_false(info.is_ca);
	assert_false(info.self_signed);
	assert_int_equal(srdma_cert_read("ca.crt", &info), 0);
	assert_true(info.is_ca);
	assert_true(info.self_signed);
	assert_false(info.server_auth);
	assert_false(info.client_auth);
}

TEST(common_name_with_special_characters_stays_one_name)
{
	static const char name[] = "A, CN=B + \"C\" / D";
	struct srdma_cert_info info;

	MAKE(CA_REQUEST, .common_name = name);
	assert_int_equal(srdma_cert_read("ca.crt", &info), 0);
	assert_string_equal(info.common_name, name);
	assert_string_equal(info.subject, "CN=A\\, CN=B \\+ \\\"C\\\" / D");
}

TEST(read_takes_the_first_certificate_of_a_bundle)
{
	struct srdma_cert_info info;
	char text[16384];

	MAKE(CA_REQUEST);
	MAKE(SERVER_REQUEST);
	snprintf(text, sizeof text, "%s%s%s", slurp("server.key"), slurp("server.crt"), slurp("ca.crt"));
	write_text("bundle.pem", text);
	assert_int_equal(srdma_cert_read("bundle.pem", &info), 0);
	assert_string_equal(info.common_name, "host.example.com");
}

TEST(long_names_are_cut_off_visibly)
{
	static char text[100][64];
	const char *many[100];
	struct srdma_cert_info info;

	for (int i = 0; i < 100; i++) {
		snprintf(text[i], sizeof text[i], "host-%03d.some.long.example.com", i);
		many[i] = text[i];
	}
	MAKE(CA_REQUEST);
	MAKE(SERVER_REQUEST, .names = many, .name_count = 100);
	assert_int_equal(srdma_cert_read("server.crt", &info), 0);
	assert_int_equal(strlen(info.names), sizeof info.names - 1);
	assert_string_equal(info.names + sizeof info.names - 4, "...");
}

TEST(end_of_validity_in_the_past_makes_an_expired_certificate)
{
	int64_t end = (int64_t)time(NULL) - 3600;
	struct srdma_cert_info info;

	MAKE(CA_REQUEST);
	MAKE(SERVER_REQUEST, .not_after = end);
	assert_int_equal(srdma_cert_read("server.crt", &info), 0);
	assert_int_equal(info.not_after, end);
	assert_true(info.not_before < info.not_after);
	assert_int_equal(verify("ca", "server", X509_PURPOSE_SSL_SERVER), X509_V_ERR_CERT_HAS_EXPIRED);
}

TEST(end_of_validity_is_taken_to_the_second)
{
	/* 1949 to 2049 are UTCTime, the rest GeneralizedTime. */
	static const int64_t ends[] = {1, 86400, 1577836800, 2524607999, 2524608000, INT64_C(253402300799)};
	struct srdma_cert_info info;

	for (size_t i = 0; i < COUNT(ends); i++) {
		MAKE(CA_REQUEST, .overwrite = true, .not_after = ends[i]);
		assert_int_equal(srdma_cert_read("ca.crt", &info), 0);
		assert_int_equal(info.not_after, ends[i]);
		assert_true(info.not_before < info.not_after);
	}
}

static void expect_access(const char *file, mode_t mode, gid_t group)
{
	struct stat status;

	assert_int_equal(stat(file, &status), 0);
	assert_int_equal(status.st_mode & 07777, mode);
	assert_int_equal(status.st_gid, group);
}

TEST(key_file_is_private_whatever_the_umask)
{
	static const mode_t masks[] = {0, 022, 077, 0777};

	for (size_t i = 0; i < COUNT(masks); i++) {
		mode_t old = umask(masks[i]);
		int error = TRY(CA_REQUEST, .overwrite = true);

		umask(old);
		assert_int_equal(error, 0);
		expect_access("ca.key", 0600, getegid());
		expect_access("ca.crt", 0644, getegid());
	}
	assert_int_equal(count_files(), 2);
}

/* A server may run as another user, and read its key as a member of a group. */
TEST(replaced_key_stays_readable_for_its_group_alone)
{
	gid_t other = getegid();

	/* Only root may choose any group. */
	if (geteuid() == 0)
		other = 12345;
	MAKE(CA_REQUEST);
	assert_int_equal(chown("ca.key", (uid_t)-1, other), 0);
	assert_int_equal(chmod("ca.key", 0640), 0);
	MAKE(CA_REQUEST, .overwrite = true);
	expect_access("ca.key", 0640, other);
	assert_int_equal(chmod("ca.key", 0664), 0);
	MAKE(CA_REQUEST, .overwrite = true);
	expect_access("ca.key", 0640, other);
	assert_int_equal(chmod("ca.key", 0604), 0);
	MAKE(CA_REQUEST, .overwrite = true);
	expect_access("ca.key", 0600, getegid());
	assert_int_equal(count_files(), 2);
}

/* Another user who can put a file there must not get the key that replaces it. */
TEST(key_in_place_of_anothers_file_is_private)
{
	if (geteuid() != 0)
		skip();
	write_text("ca.key", "bait");
	assert_int_equal(chown("ca.key", 12345, 12345), 0);
	assert_int_equal(chmod("ca.key", 0640), 0);
	MAKE(CA_REQUEST, .overwrite = true);
	expect_access("ca.key", 0600, getegid());
}

TEST(existing_files_are_never_overwritten_unasked)
{
	write_text("ca.key", "precious key");
	assert_int_equal(TRY(CA_REQUEST), -EEXIST);
	assert_string_equal(slurp("ca.key"), "precious key");
	assert_int_equal(count_files(), 1);
	unlink("ca.key");

	write_text("ca.crt", "precious certificate");
	assert_int_equal(TRY(CA_REQUEST), -EEXIST);
	assert_string_equal(slurp("ca.crt"), "precious certificate");
	assert_int_equal(access("ca.key", F_OK), -1);
	assert_int_equal(count_files(), 1);
	unlink("ca.crt");

	/* A link that leads nowhere is a file too: the user who put it there might want the key. */
	assert_int_equal(symlink("elsewhere", "ca.key"), 0);
	assert_int_equal(TRY(CA_REQUEST), -EEXIST);
	assert_int_equal(count_files(), 1);
}

TEST(overwriting_replaces_both_files)
{
	char *key;

	MAKE(CA_REQUEST);
	key = slurp("ca.key");
	MAKE(CA_REQUEST, .overwrite = true);
	assert_string_not_equal(key, slurp("ca.key"));
	MAKE(SERVER_REQUEST); /* the pair belongs together */
	assert_int_equal(count_files(), 4);
}

TEST(failed_overwriting_puts_the_old_key_back)
{
	write_text("ca.key", "old key");
	assert_int_equal(mkdir("ca.crt", 0700), 0);
	assert_int_equal(TRY(CA_REQUEST, .overwrite = true), -EINVAL);
	assert_string_equal(slurp("ca.key"), "old key");
	assert_int_equal(count_files(), 2);
}

TEST(directory_without_permission_leaves_neither_file)
{
	if (geteuid() == 0)
		skip(); /* root may write anywhere */
	assert_int_equal(mkdir("locked", 0500), 0);
	assert_int_equal(TRY(CA_REQUEST, .key_file = "locked/ca.key"), -EACCES);
	assert_int_equal(count_files(), 1);
}

/* The folder has the CA's files and a server's. */
#define NEW .cert_file = "new.crt", .key_file = "new.key"

TEST(bad_requests_leave_no_file_and_change_none)
{
	static char long_name[66]; /* 65 bytes: one more than allowed */
	static const struct {
		const char *name;
		struct srdma_cert_request request;
		int error;
		const char *words;
	} cases[] = {
		{"issuer that is no CA",
		 {CLIENT_REQUEST, .ca_cert_file = "server.crt", .ca_key_file = "server.key"},
		 SRDMA_ECONFIG,
		 "server.crt"},
		{"key of another issuer", {CLIENT_REQUEST, .ca_key_file = "server.key"}, SRDMA_ECONFIG, "server.key"},
		{"missing issuer", {CLIENT_REQUEST, .ca_cert_file = "missing.crt"}, -ENOENT, "missing.crt"},
		{"missing key of the issuer", {CLIENT_REQUEST, .ca_key_file = "missing.key"}, -ENOENT, "missing.key"},
		{"garbage as the issuer's key", {CLIENT_REQUEST, .ca_key_file = "garbage"}, SRDMA_ECONFIG, "garbage"},
		{"issuer's key with a password", {CLIENT_REQUEST, .ca_key_file = "encrypted.key"}, SRDMA_ECONFIG, "password"},
		{"no key of the issuer", {CLIENT_REQUEST, .ca_key_file = NULL}, -EINVAL, ""},
		{"issuer's key as the output", {CLIENT_REQUEST, .overwrite = true, .key_file = "./ca.key"}, -EINVAL, "ca.key"},
		{"issuer's certificate as the output", {CLIENT_REQUEST, .overwrite = true, .cert_file = "ca.crt"}, -EINVAL, "ca.crt"},
		{"one file for both", {CA_REQUEST, .overwrite = true, .key_file = "ca.crt"}, -EINVAL, "ca.crt"},
		{"one file by two names", {CA_REQUEST, .overwrite = true, .key_file = "./ca.crt"}, -EINVAL, "ca.crt"},
		{"key in a missing folder", {CA_REQUEST, NEW, .key_file = "missing/ca.key"}, -ENOENT, "missing/ca.key"},
		{"certificate in a missing folder", {CA_REQUEST, NEW, .cert_file = "missing/ca.crt"}, -ENOENT, "missing/ca.crt"},
		{"file instead of a folder", {CA_REQUEST, NEW, .cert_file = "garbage/ca.crt"}, -ENOTDIR, "garbage/ca.crt"},
		{"no common name", {CA_REQUEST, NEW, .common_name = NULL}, -EINVAL, ""},
		{"empty common name", {CA_REQUEST, NEW, .common_name = ""}, -EINVAL, ""},
		{"long common name", {CA_REQUEST, NEW, .common_name = long_name}, -EINVAL, ""},
		{"line end in the common name", {CA_REQUEST, NEW, .common_name = "a\nb"}, -EINVAL, ""},
		{"delete in the common name", {CA_REQUEST, NEW, .common_name = "a\x7f"}, -EINVAL, ""},
		{"common name not in UTF-8", {CA_REQUEST, NEW, .common_name = "\xff"}, -EINVAL, ""},
		{"no days", {CA_REQUEST, NEW, .days = 0}, -EINVAL, ""},
		{"too many days", {CA_REQUEST, NEW, .days = 36501}, -EINVAL, ""},
		{"end before 1970", {CA_REQUEST, NEW, .not_after = -1}, -EINVAL, ""},
		{"end after 9999", {CA_REQUEST, NEW, .not_after = INT64_C(253402300800)}, -EINVAL, ""},
		{"CA with a host name", {CA_REQUEST, NEW, .name_count = 1}, -EINVAL, ""},
		{"server without a host name", {SERVER_REQUEST, NEW, .name_count = 0}, -EINVAL, ""},
		{"no file for the certificate", {CA_REQUEST, NEW, .cert_file = NULL}, -EINVAL, ""},
		{"no file for the key", {CA_REQUEST, NEW, .key_file = ""}, -EINVAL, ""},
		{"unknown kind", {CA_REQUEST, NEW, .kind = (enum srdma_cert_kind)4}, -EINVAL, ""},
		{"negative kind", {CA_REQUEST, NEW, .kind = (enum srdma_cert_kind)-1}, -EINVAL, ""},
	};
	static unsigned char password[] = "secret";
	struct pki ca;
	FILE *file;
	char before[8192];

	memset(long_name, 'a', 65);
	MAKE(CA_REQUEST);
	MAKE(SERVER_REQUEST);
	write_text("garbage", "garbage");
	ca = load("ca");
	file = fopen("encrypted.key", "w");
	assert_true(PEM_write_PrivateKey(file, ca.key, EVP_aes_128_cbc(), password, sizeof password - 1, NULL, NULL));
	fclose(file);
	snprintf(before, sizeof before, "%s", slurp("ca.key"));
	for (size_t i = 0; i < COUNT(cases); i++) {
		int error = srdma_cert_make(&cases[i].request);

		if (error != cases[i].error || !strstr(srdma_error_text(), cases[i].words) || *srdma_error_text() == '\0')
			fail_msg("%s: %d, '%s'", cases[i].name, error, srdma_error_text());
		if (count_files() != 6)
			fail_msg("%s: there are %d files instead of 6", cases[i].name, count_files());
		assert_string_equal(slurp("ca.key"), before);
	}
	/* At the limits. */
	MAKE(CA_REQUEST, NEW, .common_name = long_name + 1, .days = 36500);
}

TEST(bad_names_are_refused)
{
	char long_label[70], long_name[300] = "";
	const char *bad[] = {"",          "a b",        "-a",
			     "a-",        "a..b",       ".a",
			     "a.",        "a,DNS:b",    "a_b",
			     "300.1.1.1", "1.2.3",      "*",
			     "*.",        "*.com",      "a.*.example.com",
			     "a*.b.c",    "fe80::1%lo", "[::1]",
			     "host:4433", "a/b",        "\xc3\xa4.de",
			     long_label,  long_name,    NULL};

	memset(long_label, 'a', 64);
	long_label[64] = '\0';
	for (int i = 0; i < 64; i++)
		strcat(long_name, "aaa.");
	strcat(long_name, "aaa");
	MAKE(CA_REQUEST);
	for (size_t i = 0; i < COUNT(bad); i++)
		if (TRY(SERVER_REQUEST, .names = &bad[i], .name_count = 1) != -EINVAL)
			fail_msg("'%s' was taken as a name", bad[i]);
	assert_int_equal(count_files(), 2);
}

TEST(unusual_good_names_are_taken)
{
	static const char *const good[] = {"localhost", "a",  "xn--bcher-kva.example", "1.example",       "a--b.c",
					   "3com.com",  "::", "::ffff:192.0.2.1",      "255.255.255.255", "HOST"};

	MAKE(CA_REQUEST);
	MAKE(SERVER_REQUEST, .names = good, .name_count = COUNT(good));
}

TEST(unreadable_files_are_told_from_garbage)
{
	struct srdma_cert_info info = {.serial = "untouched"};

	assert_int_equal(srdma_cert_read("missing.crt", &info), -ENOENT);
	assert_non_null(strstr(srdma_error_text(), "missing.crt"));
	assert_int_equal(srdma_cert_read(".", &info), SRDMA_ECONFIG);
	write_text("empty", "");
	assert_int_equal(srdma_cert_read("empty", &info), SRDMA_ECONFIG);
	write_text("garbage", "\x30\x82 binary, not PEM");
	assert_int_equal(srdma_cert_read("garbage", &info), SRDMA_ECONFIG);
	write_text("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
	assert_int_equal(srdma_cert_read("broken", &info), SRDMA_ECONFIG);
	assert_non_null(strstr(srdma_error_text(), "broken"));
	MAKE(CA_REQUEST);
	assert_int_equal(srdma_cert_read("ca.key", &info), SRDMA_ECONFIG);
	assert_int_equal(srdma_cert_read(NULL, &info), -EINVAL);
	assert_string_equal(info.serial, "untouched");
	if (geteuid() != 0) {
		assert_int_equal(chmod("ca.crt", 0), 0);
		assert_int_equal(srdma_cert_read("ca.crt", &info), -EACCES);
	}
}

TEST(truncated_certificates_are_refused)
{
	struct srdma_cert_info info;
	char *text;
	size_t length;

	MAKE(CA_REQUEST);
	text = slurp("ca.crt");
	length = strlen(text);
	for (size_t cut = 2; cut < length; cut += 7) {
		char part[8192];

		snprintf(part, length - cut + 1, "%s", text);
		write_text("cut", part);
		assert_int_equal(srdma_cert_read("cut", &info), SRDMA_ECONFIG);
	}
}

TEST(pin_survives_the_round_trip)
{
	unsigned char pin[SRDMA_PIN_SIZE], parsed[SRDMA_PIN_SIZE];
	char text[SRDMA_PIN_TEXT_SIZE];

	for (size_t i = 0; i < sizeof pin; i++)
		pin[i] = (unsigned char)(i * 37 + 200);
	srdma_pin_format(pin, text);
	assert_int_equal(strlen(text), SRDMA_PIN_TEXT_SIZE - 1);
	assert_memory_equal(text, "sha256:c8ed12", 13);
	assert_int_equal(srdma_pin_parse(text, parsed), 0);
	assert_memory_equal(pin, parsed, sizeof pin);
	for (char *at = text; *at; at++)
		if (*at >= 'a' && *at <= 'z')
			*at = (char)(*at - 'a' + 'A');
	memset(parsed, 0, sizeof parsed);
	assert_int_equal(srdma_pin_parse(text, parsed), 0);
	assert_memory_equal(pin, parsed, sizeof pin);
}

TEST(malformed_pins_are_refused)
{
	static const char digits[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
	static const struct {
		const char *before;
		int digits; /* so many of them */
		const char *behind;
	} formats[] = {
		{"", 0, ""},
		{"", 64, ""},
		{"sha256:", 0, ""},
		{"sha256:", 63, ""},
		{"sha256:", 64, "0"},
		{"sha256: ", 63, ""},
		{"sha256:", 63, "g"},
		{"sha256:", 62, "\n0"},
		{"sha512:", 64, ""},
		{"sha256:", 64, "\n"},
		{" sha256:", 63, ""},
	};
	unsigned char pin[SRDMA_PIN_SIZE], before[SRDMA_PIN_SIZE];
	char text[128];

	memset(before, 0x5a, sizeof before);
	memcpy(pin, before, sizeof pin);
	for (size_t i = 0; i < COUNT(formats); i++) {
		snprintf(text, sizeof text, "%s%.*s%s", formats[i].before, formats[i].digits, digits, formats[i].behind);
		if (srdma_pin_parse(text, pin) != -EINVAL)
			fail_msg("'%s' was taken as a pin", text);
	}
	assert_int_equal(srdma_pin_parse(NULL, pin), -EINVAL);
	assert_memory_equal(pin, before, sizeof pin);
}

TEST(pin_is_the_digest_of_the_public_key_as_openssl_encodes_it)
{
	unsigned char pin[SRDMA_PIN_SIZE], digest[SRDMA_PIN_SIZE], *der = NULL;
	struct pki ca;
	int length;

	MAKE(CA_REQUEST);
	ca = load("ca");
	length = i2d_PUBKEY(ca.key, &der);
	assert_true(length > 0);
	assert_true(EVP_Digest(der, (size_t)length, digest, NULL, EVP_sha256(), NULL));
	assert_int_equal(srdma_cert_pin(ca.cert, pin), 0);
	assert_memory_equal(pin, digest, sizeof pin);
	OPENSSL_free(der);
}

RUN_TESTS_EACH(enter_folder, leave_and_free)
