/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "cert.h"

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

static char workdir[64];
static const char *const names[] = {"host.example.com", "*.apps.example.com", "192.0.2.7", "2001:db8::1"};

static int enter_directory(void **state)
{
	strcpy(workdir, "/tmp/securdma-cert-XXXXXX");
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

static struct srdma_cert_request ca_request(void)
{
	return (struct srdma_cert_request){.size = sizeof(struct srdma_cert_request), .kind = SRDMA_CERT_CA,
					   .common_name = "Test CA",
					   .days = 30,
					   .cert_file = "ca.crt",
					   .key_file = "ca.key"};
}

static struct srdma_cert_request server_request(void)
{
	return (struct srdma_cert_request){.size = sizeof(struct srdma_cert_request), .kind = SRDMA_CERT_SERVER,
					   .common_name = "host.example.com",
					   .names = names,
					   .name_count = COUNT(names),
					   .days = 10,
					   .ca_cert_file = "ca.crt",
					   .ca_key_file = "ca.key",
					   .cert_file = "server.crt",
					   .key_file = "server.key"};
}

static struct srdma_cert_request client_request(void)
{
	struct srdma_cert_request request = server_request();

	request.kind = SRDMA_CERT_CLIENT;
	request.common_name = "alice";
	request.names = NULL;
	request.name_count = 0;
	request.cert_file = "client.crt";
	request.key_file = "client.key";
	return request;
}

static void make(struct srdma_cert_request request)
{
	int error = srdma_cert_make(&request);

	if (error)
		print_error("%s\n", srdma_error_text());
	assert_int_equal(error, 0);
}

static int try(struct srdma_cert_request request)
{
	return srdma_cert_make(&request);
}

static X509 *load(const char *path)
{
	FILE *file = fopen(path, "r");
	X509 *cert = file ? PEM_read_X509(file, NULL, NULL, NULL) : NULL;

	assert_non_null(cert);
	fclose(file);
	return cert;
}

static EVP_PKEY *load_key(const char *path)
{
	FILE *file = fopen(path, "r");
	EVP_PKEY *key = file ? PEM_read_PrivateKey(file, NULL, NULL, NULL) : NULL;

	assert_non_null(key);
	fclose(file);
	return key;
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

static void spit(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

/* Verifies a chain as a TLS peer does; returns OpenSSL's X509_V_ code. */
static int verify(const char *ca_file, const char *cert_file, int purpose)
{
	X509 *ca = load(ca_file), *cert = load(cert_file);
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *context = X509_STORE_CTX_new();
	int result;

	assert_true(X509_STORE_add_cert(store, ca));
	assert_true(X509_STORE_CTX_init(context, store, cert, NULL));
	X509_STORE_CTX_set_flags(context, X509_V_FLAG_X509_STRICT);
	X509_STORE_CTX_set_purpose(context, purpose);
	X509_verify_cert(context);
	result = X509_STORE_CTX_get_error(context);
	X509_STORE_CTX_free(context);
	X509_STORE_free(store);
	X509_free(ca);
	X509_free(cert);
	return result;
}

TEST(issued_certificates_verify_against_their_ca)
{
	X509 *ca, *server;
	EVP_PKEY *ca_key, *key;

	make(ca_request());
	make(server_request());
	make(client_request());
	assert_int_equal(verify("ca.crt", "server.crt", X509_PURPOSE_SSL_SERVER), X509_V_OK);
	assert_int_equal(verify("ca.crt", "client.crt", X509_PURPOSE_SSL_CLIENT), X509_V_OK);

	ca = load("ca.crt");
	server = load("server.crt");
	ca_key = load_key("ca.key");
	key = load_key("server.key");
	assert_int_equal(X509_verify(server, ca_key), 1);
	assert_int_equal(X509_verify(ca, ca_key), 1);
	assert_int_equal(X509_check_private_key(server, key), 1);
	assert_int_equal(EVP_PKEY_get_bits(key), 256);
	assert_int_equal(X509_get_signature_nid(server), NID_ecdsa_with_SHA256);
	X509_free(ca);
	X509_free(server);
	EVP_PKEY_free(ca_key);
	EVP_PKEY_free(key);
}

TEST(certificate_of_another_ca_does_not_verify)
{
	struct srdma_cert_request other = ca_request();

	make(ca_request());
	make(server_request());
	other.cert_file = "other.crt";
	other.key_file = "other.key";
	make(other);
	assert_int_not_equal(verify("other.crt", "server.crt", X509_PURPOSE_SSL_SERVER), X509_V_OK);
}

TEST(client_certificate_can_not_serve_nor_the_reverse)
{
	make(ca_request());
	make(server_request());
	make(client_request());
	assert_int_equal(verify("ca.crt", "client.crt", X509_PURPOSE_SSL_SERVER), X509_V_ERR_INVALID_PURPOSE);
	assert_int_equal(verify("ca.crt", "server.crt", X509_PURPOSE_SSL_CLIENT), X509_V_ERR_INVALID_PURPOSE);
}

TEST(server_certificate_bears_its_names_and_addresses)
{
	X509 *cert;

	make(ca_request());
	make(server_request());
	cert = load("server.crt");
	assert_int_equal(X509_check_host(cert, "host.example.com", 0, 0, NULL), 1);
	assert_int_equal(X509_check_host(cert, "a.apps.example.com", 0, 0, NULL), 1);
	assert_int_equal(X509_check_host(cert, "other.example.com", 0, 0, NULL), 0);
	assert_int_equal(X509_check_ip_asc(cert, "192.0.2.7", 0), 1);
	assert_int_equal(X509_check_ip_asc(cert, "2001:db8::1", 0), 1);
	assert_int_equal(X509_check_ip_asc(cert, "192.0.2.8", 0), 0);
	/* An address is no DNS name. */
	assert_int_equal(X509_check_host(cert, "192.0.2.7", 0, 0, NULL), 0);
	X509_free(cert);
}

TEST(extensions_are_critical_and_key_identifiers_match)
{
	const ASN1_OCTET_STRING *subject, *authority;
	X509 *ca, *server;
	int critical;
	BASIC_CONSTRAINTS *constraints;

	make(ca_request());
	make(server_request());
	ca = load("ca.crt");
	server = load("server.crt");
	constraints = X509_get_ext_d2i(ca, NID_basic_constraints, &critical, NULL);
	assert_non_null(constraints);
	assert_true(constraints->ca);
	assert_int_equal(critical, 1);
	assert_int_equal(ASN1_INTEGER_get(constraints->pathlen), 0);
	BASIC_CONSTRAINTS_free(constraints);
	assert_int_equal(X509_get_key_usage(ca), KU_KEY_CERT_SIGN | KU_CRL_SIGN);
	assert_int_equal(X509_get_key_usage(server), KU_DIGITAL_SIGNATURE);
	assert_int_equal(X509_get_extended_key_usage(server), XKU_SSL_SERVER);
	subject = X509_get0_subject_key_id(ca);
	authority = X509_get0_authority_key_id(server);
	assert_non_null(subject);
	assert_non_null(authority);
	assert_int_equal(ASN1_OCTET_STRING_cmp(subject, authority), 0);
	authority = X509_get0_authority_key_id(ca);
	assert_non_null(authority);
	assert_int_equal(ASN1_OCTET_STRING_cmp(subject, authority), 0);
	X509_free(ca);
	X509_free(server);
}

TEST(serials_are_positive_random_and_of_128_bits)
{
	struct srdma_cert_request request = ca_request();
	struct srdma_cert_info first, second;

	request.overwrite = true;
	make(request);
	assert_int_equal(srdma_cert_read("ca.crt", &first), 0);
	make(request);
	assert_int_equal(srdma_cert_read("ca.crt", &second), 0);
	assert_int_equal(strlen(first.serial), 32);
	assert_uint_in_range(first.serial[0], '4', '7');
	assert_string_not_equal(first.serial, second.serial);
	assert_string_not_equal(first.pin, second.pin);
}

TEST(self_signed_certificate_is_a_server_and_no_ca)
{
	struct srdma_cert_request request = server_request();
	struct srdma_cert_info info;
	unsigned char pin[SRDMA_PIN_SIZE], parsed[SRDMA_PIN_SIZE];
	X509 *cert;

	request.kind = SRDMA_CERT_SELF_SIGNED;
	request.ca_cert_file = request.ca_key_file = NULL;
	make(request);
	assert_int_equal(srdma_cert_read("server.crt", &info), 0);
	assert_true(info.self_signed);
	assert_true(info.server_auth);
	assert_false(info.is_ca);
	assert_string_equal(info.subject, info.issuer);

	cert = load("server.crt");
	assert_int_equal(srdma_cert_pin(cert, pin), 0);
	assert_int_equal(srdma_pin_parse(info.pin, parsed), 0);
	assert_memory_equal(pin, parsed, sizeof pin);
	X509_free(cert);
}

TEST(self_signed_certificate_may_have_no_name)
{
	struct srdma_cert_request request = server_request();
	struct srdma_cert_info info;

	request.kind = SRDMA_CERT_SELF_SIGNED;
	request.name_count = 0;
	make(request);
	assert_int_equal(srdma_cert_read("server.crt", &info), 0);
	assert_string_equal(info.names, "");
}

TEST(read_tells_what_the_certificate_says)
{
	struct srdma_cert_info info;
	int64_t now = (int64_t)time(NULL);

	make(ca_request());
	make(server_request());
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
	struct srdma_cert_request request = ca_request();
	struct srdma_cert_info info;

	request.common_name = "A, CN=B + \"C\" / D";
	make(request);
	assert_int_equal(srdma_cert_read("ca.crt", &info), 0);
	assert_string_equal(info.common_name, request.common_name);
	assert_string_equal(info.subject, "CN=A\\, CN=B \\+ \\\"C\\\" / D");
}

TEST(read_takes_the_first_certificate_of_a_bundle)
{
	struct srdma_cert_info info;
	char text[16384];

	make(ca_request());
	make(server_request());
	snprintf(text, sizeof text, "%s%s%s", slurp("server.key"), slurp("server.crt"), slurp("ca.crt"));
	spit("bundle.pem", text);
	assert_int_equal(srdma_cert_read("bundle.pem", &info), 0);
	assert_string_equal(info.common_name, "host.example.com");
}

TEST(long_names_are_cut_off_visibly)
{
	static char text[100][64];
	const char *many[100];
	struct srdma_cert_request request = server_request();
	struct srdma_cert_info info;

	for (int i = 0; i < 100; i++) {
		snprintf(text[i], sizeof text[i], "host-%03d.some.long.example.com", i);
		many[i] = text[i];
	}
	request.names = many;
	request.name_count = 100;
	make(ca_request());
	make(request);
	assert_int_equal(srdma_cert_read("server.crt", &info), 0);
	assert_int_equal(strlen(info.names), sizeof info.names - 1);
	assert_string_equal(info.names + sizeof info.names - 4, "...");
}

TEST(end_of_validity_in_the_past_makes_an_expired_certificate)
{
	struct srdma_cert_request request = server_request();
	struct srdma_cert_info info;

	make(ca_request());
	request.not_after = (int64_t)time(NULL) - 3600;
	make(request);
	assert_int_equal(srdma_cert_read("server.crt", &info), 0);
	assert_int_equal(info.not_after, request.not_after);
	assert_true(info.not_before < info.not_after);
	assert_int_equal(verify("ca.crt", "server.crt", X509_PURPOSE_SSL_SERVER), X509_V_ERR_CERT_HAS_EXPIRED);
}

TEST(end_of_validity_is_taken_to_the_second)
{
	/* 1949 to 2049 are UTCTime, the rest GeneralizedTime. */
	static const int64_t ends[] = {1, 86400, 1577836800, 2524607999, 2524608000, INT64_C(253402300799)};
	struct srdma_cert_request request = ca_request();
	struct srdma_cert_info info;

	request.overwrite = true;
	for (size_t i = 0; i < COUNT(ends); i++) {
		request.not_after = ends[i];
		make(request);
		assert_int_equal(srdma_cert_read("ca.crt", &info), 0);
		assert_int_equal(info.not_after, ends[i]);
		assert_true(info.not_before < info.not_after);
	}
}

TEST(key_file_is_private_whatever_the_umask)
{
	static const mode_t masks[] = {0, 022, 077, 0777};
	struct srdma_cert_request request = ca_request();
	struct stat status;

	request.overwrite = true;
	for (size_t i = 0; i < COUNT(masks); i++) {
		mode_t old = umask(masks[i]);
		int error = srdma_cert_make(&request);

		umask(old);
		assert_int_equal(error, 0);
		assert_int_equal(stat("ca.key", &status), 0);
		assert_int_equal(status.st_mode & 07777, 0600);
		assert_int_equal(stat("ca.crt", &status), 0);
		assert_int_equal(status.st_mode & 07777, 0644);
	}
	assert_int_equal(count_files(), 2);
}

static void expect_access(const char *file, mode_t mode, gid_t group)
{
	struct stat status;

	assert_int_equal(stat(file, &status), 0);
	assert_int_equal(status.st_mode & 07777, mode);
	assert_int_equal(status.st_gid, group);
}

/* As of a server that runs as another user, and reads its key as a member of a group. */
TEST(replaced_key_stays_readable_for_its_group_alone)
{
	struct srdma_cert_request request = ca_request();
	gid_t other = getegid();

	/* Only root may choose any group. */
	if (geteuid() == 0)
		other = 12345;
	make(request);
	request.overwrite = true;
	assert_int_equal(chown("ca.key", (uid_t)-1, other), 0);
	assert_int_equal(chmod("ca.key", 0640), 0);
	make(request);
	expect_access("ca.key", 0640, other);
	assert_int_equal(chmod("ca.key", 0664), 0);
	make(request);
	expect_access("ca.key", 0640, other);
	assert_int_equal(chmod("ca.key", 0604), 0);
	make(request);
	expect_access("ca.key", 0600, getegid());
	assert_int_equal(count_files(), 2);
}

/* Whoever can put a file there must not get the key that replaces it. */
TEST(key_in_place_of_anothers_file_is_private)
{
	struct srdma_cert_request request = ca_request();

	if (geteuid() != 0)
		skip();
	spit("ca.key", "bait");
	assert_int_equal(chown("ca.key", 12345, 12345), 0);
	assert_int_equal(chmod("ca.key", 0640), 0);
	request.overwrite = true;
	make(request);
	expect_access("ca.key", 0600, getegid());
}

TEST(existing_files_are_never_overwritten_unasked)
{
	struct srdma_cert_request request = ca_request();

	spit("ca.key", "precious key");
	assert_int_equal(try(request), -EEXIST);
	assert_string_equal(slurp("ca.key"), "precious key");
	assert_int_equal(count_files(), 1);
	unlink("ca.key");

	spit("ca.crt", "precious certificate");
	assert_int_equal(try(request), -EEXIST);
	assert_string_equal(slurp("ca.crt"), "precious certificate");
	assert_int_equal(access("ca.key", F_OK), -1);
	assert_int_equal(count_files(), 1);
	unlink("ca.crt");

	/* A link that leads nowhere is a file too: who put it there might want the key. */
	assert_int_equal(symlink("elsewhere", "ca.key"), 0);
	assert_int_equal(try(request), -EEXIST);
	assert_int_equal(count_files(), 1);
}

TEST(overwriting_replaces_both_files)
{
	struct srdma_cert_request request = ca_request();
	char *key;

	make(request);
	key = slurp("ca.key");
	request.overwrite = true;
	make(request);
	assert_string_not_equal(key, slurp("ca.key"));
	make(server_request()); /* the pair belongs together */
	assert_int_equal(count_files(), 4);
}

TEST(failed_overwriting_puts_the_old_key_back)
{
	struct srdma_cert_request request = ca_request();

	spit("ca.key", "old key");
	assert_int_equal(mkdir("ca.crt", 0700), 0);
	request.overwrite = true;
	assert_int_equal(try(request), -EINVAL);
	assert_string_equal(slurp("ca.key"), "old key");
	assert_int_equal(count_files(), 2);
}

TEST(unwritable_place_leaves_neither_file)
{
	struct srdma_cert_request request = ca_request();

	request.key_file = "missing/ca.key";
	assert_int_equal(try(request), -ENOENT);
	assert_int_equal(count_files(), 0);
	request = ca_request();
	request.cert_file = "missing/ca.crt";
	assert_int_equal(try(request), -ENOENT);
	assert_int_equal(count_files(), 0);
	spit("file", "");
	request.cert_file = "file/ca.crt";
	assert_int_equal(try(request), -ENOTDIR);
	assert_int_equal(count_files(), 1);
}

TEST(directory_without_permission_leaves_neither_file)
{
	struct srdma_cert_request request = ca_request();

	if (geteuid() == 0)
		skip(); /* root may write anywhere */
	assert_int_equal(mkdir("locked", 0500), 0);
	request.key_file = "locked/ca.key";
	assert_int_equal(try(request), -EACCES);
	assert_int_equal(count_files(), 1);
}

TEST(issuer_that_is_no_ca_is_refused)
{
	struct srdma_cert_request request = client_request();

	make(ca_request());
	make(server_request());
	request.ca_cert_file = "server.crt";
	request.ca_key_file = "server.key";
	assert_int_equal(try(request), SRDMA_ECONFIG);
	assert_non_null(strstr(srdma_error_text(), "server.crt"));
	assert_int_equal(access("client.key", F_OK), -1);
}

TEST(issuer_key_of_another_certificate_is_refused)
{
	struct srdma_cert_request request = client_request();

	make(ca_request());
	make(server_request());
	request.ca_key_file = "server.key";
	assert_int_equal(try(request), SRDMA_ECONFIG);
	assert_non_null(strstr(srdma_error_text(), "server.key"));
}

TEST(issuer_files_that_are_missing_or_garbage_are_refused)
{
	assert_int_equal(try(server_request()), -ENOENT);
	make(ca_request());
	spit("ca.key", "garbage");
	assert_int_equal(try(server_request()), SRDMA_ECONFIG);
	unlink("ca.key");
	assert_int_equal(try(server_request()), -ENOENT);
	assert_non_null(strstr(srdma_error_text(), "ca.key"));
	assert_int_equal(count_files(), 1);
}

TEST(issuer_key_with_a_password_is_refused_without_a_prompt)
{
	static unsigned char password[] = "secret";
	EVP_PKEY *key;
	FILE *file;

	make(ca_request());
	key = load_key("ca.key");
	file = fopen("ca.key", "w");
	assert_true(PEM_write_PrivateKey(file, key, EVP_aes_128_cbc(), password, sizeof password - 1, NULL, NULL));
	fclose(file);
	EVP_PKEY_free(key);
	assert_int_equal(try(server_request()), SRDMA_ECONFIG);
	assert_non_null(strstr(srdma_error_text(), "password"));
}

TEST(output_never_replaces_the_issuing_ca)
{
	struct srdma_cert_request request = client_request();
	char *key;

	make(ca_request());
	key = slurp("ca.key");
	request.overwrite = true;
	request.key_file = "./ca.key";
	assert_int_equal(try(request), -EINVAL);
	request = client_request();
	request.overwrite = true;
	request.cert_file = "ca.crt";
	assert_int_equal(try(request), -EINVAL);
	assert_string_equal(slurp("ca.key"), key);
}

TEST(one_file_for_both_is_refused)
{
	struct srdma_cert_request request = ca_request();

	request.overwrite = true;
	request.key_file = "ca.crt";
	assert_int_equal(try(request), -EINVAL);
	request.key_file = "./ca.crt";
	assert_int_equal(try(request), -EINVAL);
	assert_int_equal(count_files(), 0);
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
	make(ca_request());
	for (size_t i = 0; i < COUNT(bad); i++) {
		struct srdma_cert_request request = server_request();

		request.names = &bad[i];
		request.name_count = 1;
		assert_int_equal(try(request), -EINVAL);
	}
	assert_int_equal(count_files(), 2);
}

TEST(unusual_good_names_are_taken)
{
	static const char *const good[] = {"localhost", "a",  "xn--bcher-kva.example", "1.example",       "a--b.c",
					   "3com.com",  "::", "::ffff:192.0.2.1",      "255.255.255.255", "HOST"};
	struct srdma_cert_request request = server_request();

	make(ca_request());
	request.names = good;
	request.name_count = COUNT(good);
	make(request);
}

TEST(bad_requests_are_refused)
{
	struct srdma_cert_request request;
	char long_name[66];

	memset(long_name, 'a', 65);
	long_name[65] = '\0';
#define REFUSED(member, value)                                                                                         \
	do {                                                                                                           \
		request = ca_request();                                                                                \
		request.member = value;                                                                                \
		assert_int_equal(try(request), -EINVAL);                                                               \
		assert_string_not_equal(srdma_error_text(), "");                                                       \
	} while (0)
	REFUSED(common_name, NULL);
	REFUSED(common_name, "");
	REFUSED(common_name, long_name);
	REFUSED(common_name, "a\nb");
	REFUSED(common_name, "a\x7f");
	REFUSED(common_name, "\xff");
	REFUSED(days, 0);
	REFUSED(days, 36501);
	REFUSED(not_after, -1);
	REFUSED(not_after, INT64_C(253402300800));
	REFUSED(name_count, 1);
	REFUSED(cert_file, NULL);
	REFUSED(key_file, "");
	REFUSED(kind, (enum srdma_cert_kind)4);
	REFUSED(kind, (enum srdma_cert_kind) - 1);
#undef REFUSED
	request = server_request();
	request.name_count = 0;
	assert_int_equal(try(request), -EINVAL);
	request = server_request();
	request.ca_key_file = NULL;
	assert_int_equal(try(request), -EINVAL);
	assert_int_equal(count_files(), 0);
	request = ca_request();
	request.common_name = long_name + 1; /* 64 bytes are allowed */
	request.days = 36500;
	make(request);
}

TEST(unreadable_files_are_told_from_garbage)
{
	struct srdma_cert_info info = {.serial = "untouched"};

	assert_int_equal(srdma_cert_read("missing.crt", &info), -ENOENT);
	assert_non_null(strstr(srdma_error_text(), "missing.crt"));
	assert_int_equal(srdma_cert_read(".", &info), SRDMA_ECONFIG);
	spit("empty", "");
	assert_int_equal(srdma_cert_read("empty", &info), SRDMA_ECONFIG);
	spit("garbage", "\x30\x82 binary, not PEM");
	assert_int_equal(srdma_cert_read("garbage", &info), SRDMA_ECONFIG);
	spit("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
	assert_int_equal(srdma_cert_read("broken", &info), SRDMA_ECONFIG);
	assert_non_null(strstr(srdma_error_text(), "broken"));
	make(ca_request());
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

	make(ca_request());
	text = slurp("ca.crt");
	length = strlen(text);
	for (size_t cut = 2; cut < length; cut += 7) {
		char part[8192];

		snprintf(part, length - cut + 1, "%s", text);
		spit("cut", part);
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
	unsigned char pin[SRDMA_PIN_SIZE], before[SRDMA_PIN_SIZE];
	char text[128];

	memset(before, 0x5a, sizeof before);
	memcpy(pin, before, sizeof pin);
#define REFUSED(...)                                                                                                   \
	do {                                                                                                           \
		snprintf(text, sizeof text, __VA_ARGS__);                                                              \
		assert_int_equal(srdma_pin_parse(text, pin), -EINVAL);                                                 \
	} while (0)
	REFUSED("%s", "");
	REFUSED("%s", digits);
	REFUSED("sha256:");
	REFUSED("sha256:%.63s", digits);
	REFUSED("sha256:%s0", digits);
	REFUSED("sha256: %.63s", digits);
	REFUSED("sha256:%.63sg", digits);
	REFUSED("sha256:%.62s\n0", digits);
	REFUSED("sha512:%s", digits);
	REFUSED("sha256:%s\n", digits);
	REFUSED(" sha256:%.63s", digits);
#undef REFUSED
	assert_int_equal(srdma_pin_parse(NULL, pin), -EINVAL);
	assert_memory_equal(pin, before, sizeof pin);
}

TEST(pin_is_the_digest_of_the_public_key_as_openssl_encodes_it)
{
	unsigned char pin[SRDMA_PIN_SIZE], digest[SRDMA_PIN_SIZE], *der = NULL;
	EVP_PKEY *key;
	X509 *cert;
	int length;

	make(ca_request());
	cert = load("ca.crt");
	key = load_key("ca.key");
	length = i2d_PUBKEY(key, &der);
	assert_true(length > 0);
	assert_true(EVP_Digest(der, (size_t)length, digest, NULL, EVP_sha256(), NULL));
	assert_int_equal(srdma_cert_pin(cert, pin), 0);
	assert_memory_equal(pin, digest, sizeof pin);
	OPENSSL_free(der);
	EVP_PKEY_free(key);
	X509_free(cert);
}

RUN_TESTS_EACH(enter_directory, leave_directory)
