/* SPDX-License-Identifier: Apache-2.0 */
#include "cert.h"

#include "array.h"
#include "log.h"
#include "atomic_file.h"
#include "sized.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

#define DAY             86400
#define MAX_DAYS        36500
#define MAX_NAMES       100
#define MAX_COMMON_NAME 64                    /* ub-common-name of RFC 5280 */
#define MAX_TIME        INT64_C(253402300799) /* 9999-12-31T23:59:59Z, the last that X.509 can express */
#define BACKDATE        300                   /* peers' clocks may lag this many seconds behind ours */

static const char *const kind_names[] = {"CA", "server", "client", "self-signed", "peer"};

/* ---- the request ---- */

/* An IPv4 or IPv6 address in `bytes` (room for 16): its length, or 0 when `name` is not an address. */
static int parse_ip(const char *name, unsigned char *bytes)
{
	if (inet_pton(AF_INET, name, bytes) == 1)
		return 4;
	return inet_pton(AF_INET6, name, bytes) == 1 ? 16 : 0;
}

/* A host name as of RFC 1123, or one with "*" for its first label. */
static bool is_dns_name(const char *name)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	bool wildcard = strncmp(name, "*.", 2) == 0;
	const char *label = wildcard ? name + 2 : name;
	size_t labels = 0, length;

	if (strlen(name) > 253)
		return false;
	for (;; label += length + 1) {
		length = strcspn(label, ".");
		if (length == 0 || length > 63 || label[0] == '-' || label[length - 1] == '-')
			return false;
		for (size_t i = 0; i < length; i++)
			if (!strchr(letters, label[i]) && !strchr("0123456789-", label[i]))
				return false;
		labels++;
		if (label[length] == '\0')
			break;
	}
	/* A last label of digits alone means a mistyped address, since no name ends in one. */
	return (!wildcard || labels >= 2) && strspn(label, "0123456789") != length;
}

static int check_names(const struct srdma_cert_request *request)
{
	const char *kind = kind_names[request->kind];
	unsigned char ip[16];

	if (request->name_count > 0 && (request->kind == SRDMA_CERT_CA || request->kind == SRDMA_CERT_CLIENT))
		return srdma_fail(-EINVAL, "a %s certificate cannot have host names; remove them", kind);
	if (request->name_count == 0 && (request->kind == SRDMA_CERT_SERVER || request->kind == SRDMA_CERT_PEER))
		return srdma_fail(-EINVAL, "a %s certificate needs the names or addresses that clients connect to", kind);
	if (request->name_count > MAX_NAMES)
		return srdma_fail(-EINVAL, "%zu names are too many for a certificate; give at most %d",
				  request->name_count, MAX_NAMES);
	if (request->name_count > 0 && !request->names)
		return srdma_fail(-EINVAL, "names is NULL, but name_count is not 0");
	for (size_t i = 0; i < request->name_count; i++) {
		const char *name = request->names[i];

		if (!name || (!parse_ip(name, ip) && !is_dns_name(name)))
			return srdma_fail(-EINVAL, "'%.260s' is neither a DNS name nor an IP address",
					  name ? name : "");
	}
	return 0;
}

static bool is_issued(enum srdma_cert_kind kind)
{
	return kind == SRDMA_CERT_SERVER || kind == SRDMA_CERT_CLIENT || kind == SRDMA_CERT_PEER;
}

static int check_files(const struct srdma_cert_request *request)
{
	const char *out[] = {request->cert_file, request->key_file};

	if (!out[0] || !*out[0] || !out[1] || !*out[1])
		return srdma_fail(-EINVAL, "give a file for the certificate and one for the key");
	if (strcmp(out[0], out[1]) == 0 || srdma_same_entry(out[0], out[1]))
		return srdma_fail(-EINVAL, "certificate and key can't both go to %s", out[0]);
	if (!is_issued(request->kind))
		return 0;
	if (!request->ca_cert_file || !request->ca_key_file)
		return srdma_fail(-EINVAL, "a %s certificate needs the certificate and the key of a CA",
				  kind_names[request->kind]);
	for (int i = 0; i < 2; i++)
		if (srdma_same_file(out[i], request->ca_cert_file) || srdma_same_file(out[i], request->ca_key_file))
			return srdma_fail(-EINVAL, "%s belongs to the issuing CA; write elsewhere", out[i]);
	return 0;
}

static int check_request(const struct srdma_cert_request *request)
{
	const char *name = request->common_name;
	size_t length;

	if ((unsigned)request->kind >= SRDMA_COUNT(kind_names))
		return srdma_fail(-EINVAL, "there is no kind %d of certificate", (int)request->kind);
	length = name ? strlen(name) : 0;
	if (length < 1 || length > MAX_COMMON_NAME)
		return srdma_fail(-EINVAL, "the common name has %zu bytes; it must have 1 to %d", length,
				  MAX_COMMON_NAME);
	for (size_t i = 0; i < length; i++)
		if (name[i] < 0x20 || name[i] > 0x7e)
			return srdma_fail(-EINVAL, "the common name '%s' must be of printable ASCII characters", name);
	if (request->not_after < 0 || request->not_after > MAX_TIME)
		return srdma_fail(-EINVAL, "the end of validity must lie in the years 1970 to 9999");
	if (request->not_after == 0 && (request->days < 1 || request->days > MAX_DAYS))
		return srdma_fail(-EINVAL, "a certificate cannot be valid for %u days; give 1 to %d", request->days,
				  MAX_DAYS);
	int error = check_names(request);

	return error ? error : check_files(request);
}

/* ---- making ---- */

struct issuer {
	X509 *cert;
	EVP_PKEY *key;
	STACK_OF(X509) *file; /* all certificates that came with it */
};

static void issuer_free(struct issuer *issuer)
{
	X509_free(issuer->cert);
	EVP_PKEY_free(issuer->key);
	sk_X509_pop_free(issuer->file, X509_free);
}

/* The caller calls issuer_free even after a failure. */
static int issuer_load(const struct srdma_cert_request *request, struct issuer *issuer)
{
	int error = srdma_cert_load(request->ca_cert_file, "CA certificate", &issuer->cert);

	if (!error)
		error = srdma_cert_load_all(request->ca_cert_file, "CA certificate", &issuer->file);
	if (!error)
		error = srdma_cert_load_key(request->ca_key_file, "CA key", &issuer->key);
	if (error)
		return error;
	/* 1 is basicConstraints CA:TRUE, without a keyUsage that forbids signing; higher ones are legacy guesses. */
	if (X509_check_ca(issuer->cert) != 1)
		return srdma_fail(SRDMA_ECONFIG,
				  "%s is not a CA certificate and cannot issue others; "
				  "'securdma cert ca' makes one",
				  request->ca_cert_file);
	if (X509_check_private_key(issuer->cert, issuer->key) != 1)
		return srdma_fail_openssl(SRDMA_ECONFIG, "the key %s does not belong to the CA certificate %s",
					  request->ca_key_file, request->ca_cert_file);
	return 0;
}

static int set_serial(X509 *cert)
{
	unsigned char bytes[16];
	BIGNUM *number;
	int error = 0;

	if (RAND_bytes(bytes, sizeof bytes) != 1)
		return srdma_fail_openssl(SRDMA_ERANDOM, "no random bytes for the serial number; nothing was written");
	/* Positive, not zero, and of one length: 126 random bits. */
	bytes[0] = (bytes[0] & 0x3f) | 0x40;
	number = BN_bin2bn(bytes, sizeof bytes, NULL);
	if (!number || !BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert)))
		error = srdma_fail_openssl(-ENOMEM, "cannot make the serial number");
	BN_free(number);
	return error;
}

static int set_validity(X509 *cert, const struct srdma_cert_request *request, X509 *issuer)
{
	int64_t not_before = (int64_t)time(NULL) - BACKDATE;
	int64_t not_after = request->not_after ? request->not_after : not_before + (int64_t)request->days * DAY;
	bool past_issuer;

	/* Tests of expiry ask for an end in the past: such a certificate gets one day of validity before that end. */
	if (not_after <= not_before)
		not_before = not_after > DAY ? not_after - DAY : 0;
	if (!ASN1_TIME_set(X509_getm_notBefore(cert), (time_t)not_before) || !ASN1_TIME_set(X509_getm_notAfter(cert), (time_t)not_after))
		return srdma_fail_openssl(-EINVAL, "the times of validity can't be encoded");
	past_issuer = issuer != cert && ASN1_TIME_compare(X509_get0_notAfter(cert), X509_get0_notAfter(issuer)) > 0;
	/* A number of days is cut to the CA's validity. A date stays as the caller gave it. */
	if (past_issuer && request->not_after == 0)
		return X509_set1_notAfter(cert, X509_get0_notAfter(issuer)) == 1
			       ? 0
			       : srdma_fail_openssl(-ENOMEM, "the times of validity can't be encoded");
	if (past_issuer)
		srdma_log(SRDMA_LOG_WARN, "%s is valid for longer than its CA %s: peers refuse it as soon as the CA has expired",
			  request->cert_file, request->ca_cert_file);
	return 0;
}

static int add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509_EXTENSION *extension;
	X509V3_CTX context;
	int ok;

	X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	ok = extension && X509_add_ext(cert, extension, -1);
	X509_EXTENSION_free(extension);
	return ok ? 0 : srdma_fail_openssl(-EINVAL, "cannot add the certificate extension %s", OBJ_nid2sn(nid));
}

static GENERAL_NAME *make_name(const char *name)
{
	unsigned char ip[16];
	int length = parse_ip(name, ip);
	ASN1_STRING *value = length ? ASN1_OCTET_STRING_new() : ASN1_IA5STRING_new();
	GENERAL_NAME *general = GENERAL_NAME_new();

	if (value && general && ASN1_STRING_set(value, length ? (void *)ip : name, length ? length : -1)) {
		GENERAL_NAME_set0_value(general, length ? GEN_IPADD : GEN_DNS, value);
		return general;
	}
	ASN1_STRING_free(value);
	GENERAL_NAME_free(general);
	return NULL;
}

/* Builds the extension by hand, because X509V3_EXT_conf would take a comma in a name as the start of another name. */
static int add_names(X509 *cert, const struct srdma_cert_request *request)
{
	GENERAL_NAMES *names = GENERAL_NAMES_new();
	bool ok = names != NULL;

	for (size_t i = 0; ok && i < request->name_count; i++) {
		GENERAL_NAME *name = make_name(request->names[i]);

		ok = name && sk_GENERAL_NAME_push(names, name) > 0;
		if (!ok)
			GENERAL_NAME_free(name);
	}
	ok = ok && X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) == 1;
	GENERAL_NAMES_free(names);
	return ok ? 0 : srdma_fail_openssl(-ENOMEM, "cannot add the subject alternative names");
}

static int add_extensions(X509 *cert, X509 *issuer, const struct srdma_cert_request *request)
{
	/* The CA signs leaves only (pathlen:0). A self-signed certificate is no CA: a peer that pins it trusts it for itself alone. */
	static const struct {
		const char *constraints, *usage, *extended;
	} rights[] = {
		[SRDMA_CERT_CA] = {"critical,CA:TRUE,pathlen:0", "critical,keyCertSign,cRLSign", NULL},
		[SRDMA_CERT_SERVER] = {"critical,CA:FALSE", "critical,digitalSignature", "serverAuth"},
		[SRDMA_CERT_CLIENT] = {"critical,CA:FALSE", "critical,digitalSignature", "clientAuth"},
		[SRDMA_CERT_SELF_SIGNED] = {"critical,CA:FALSE", "critical,digitalSignature", "serverAuth"},
		[SRDMA_CERT_PEER] = {"critical,CA:FALSE", "critical,digitalSignature", "serverAuth,clientAuth"},
	};
	const char *extended = rights[request->kind].extended;
	int error = add_extension(cert, issuer, NID_basic_constraints, rights[request->kind].constraints);

	if (!error)
		error = add_extension(cert, issuer, NID_key_usage, rights[request->kind].usage);
	if (!error && extended)
		error = add_extension(cert, issuer, NID_ext_key_usage, extended);
	if (!error)
		error = add_extension(cert, issuer, NID_subject_key_identifier, "hash");
	/* Comes after the subject's key identifier, since a self-signed certificate refers to its own. Foreign CAs may have none. */
	if (!error && X509_get_ext_by_NID(issuer, NID_subject_key_identifier, -1) >= 0)
		error = add_extension(cert, issuer, NID_authority_key_identifier, "keyid:always");
	if (!error && request->name_count > 0)
		error = add_names(cert, request);
	return error;
}

/* Signs with SHA-256, except with the Edwards curves of foreign CAs, which have a digest of their own. */
static int sign(X509 *cert, EVP_PKEY *key)
{
	int type = EVP_PKEY_get_base_id(key);
	const EVP_MD *digest = type == EVP_PKEY_ED25519 || type == EVP_PKEY_ED448 ? NULL : EVP_sha256();

	return X509_sign(cert, key, digest) > 0 ? 0 : srdma_fail_openssl(SRDMA_ECONFIG, "cannot sign the certificate");
}

/* All members of `issuer` are NULL for a certificate that signs itself. */
static int make_cert(const struct srdma_cert_request *request, const struct issuer *issuer, EVP_PKEY *key, X509 **out)
{
	X509 *cert = X509_new();
	X509 *issuer_cert = issuer->cert ? issuer->cert : cert;
	X509_NAME *subject = cert ? X509_get_subject_name(cert) : NULL;
	int error;

	if (!cert || !X509_set_version(cert, X509_VERSION_3) || !X509_set_pubkey(cert, key) ||
	    !X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_ASC, (const unsigned char *)request->common_name, -1, -1, 0) ||
	    !X509_set_issuer_name(cert, X509_get_subject_name(issuer_cert))) {
		error = srdma_fail_openssl(-ENOMEM, "cannot make the certificate for '%s'", request->common_name);
		goto fail;
	}
	error = set_serial(cert);
	if (!error)
		error = set_validity(cert, request, issuer_cert);
	if (!error)
		error = add_extensions(cert, issuer_cert, request);
	if (!error)
		error = sign(cert, issuer->key ? issuer->key : key);
	if (error)
		goto fail;
	*out = cert;
	return 0;

fail:
	X509_free(cert);
	return error;
}

/* ---- writing ---- */

/* Writes the issuer and the CAs above it in its file, without the root: a peer that trusts the root has it, and a peer that trusts a CA
 * below needs none. */
static bool write_chain(BIO *out, const struct issuer *issuer)
{
	X509 *at = issuer->cert;

	/* The count ends the loop if the certificates of the file form a circle. */
	for (int left = sk_X509_num(issuer->file); at && left > 0 && X509_self_signed(at, 0) != 1; left--) {
		X509 *above = NULL;

		if (!PEM_write_bio_X509(out, at))
			return false;
		for (int i = 0; !above && i < sk_X509_num(issuer->file); i++)
			if (X509_check_issued(sk_X509_value(issuer->file, i), at) == X509_V_OK)
				above = sk_X509_value(issuer->file, i);
		at = above;
	}
	return true;
}

static int write_files(const struct srdma_cert_request *request, const struct issuer *issuer, EVP_PKEY *key, X509 *cert)
{
	struct srdma_atomic_file key_output = {.path = request->key_file, .mode = 0600, .group_mode = 0040};
	struct srdma_atomic_file cert_output = {.path = request->cert_file, .mode = 0644};
	BIO *key_text = BIO_new(BIO_s_secmem()), *cert_text = BIO_new(BIO_s_mem());
	int error;

	if (!key_text || !cert_text || !PEM_write_bio_PrivateKey(key_text, key, NULL, NULL, 0, NULL, NULL) ||
	    !PEM_write_bio_X509(cert_text, cert) || !write_chain(cert_text, issuer)) {
		error = srdma_fail_openssl(-ENOMEM, "cannot encode the key and the certificate");
		goto done;
	}
	error = srdma_atomic_file_prepare(&key_output, key_text);
	if (!error)
		error = srdma_atomic_file_prepare(&cert_output, cert_text);
	if (!error)
		error = srdma_atomic_file_publish(&key_output, request->overwrite);
	if (!error)
		error = srdma_atomic_file_publish(&cert_output, request->overwrite);
	if (error)
		srdma_atomic_file_revert(&key_output);
	srdma_atomic_file_finish(&key_output);
	srdma_atomic_file_finish(&cert_output);
done:
	BIO_free(cert_text);
	BIO_free(key_text); /* a memory BIO wipes its content when it is freed */
	return error;
}

SRDMA_DEFAULTS(srdma_cert_request, .kind = SRDMA_CERT_CA)

int srdma_cert_make(const struct srdma_cert_request *given)
{
	struct srdma_cert_request own, *request = &own;
	struct issuer issuer = {.cert = NULL};
	EVP_PKEY *key = NULL;
	X509 *cert = NULL;
	int error;

	ERR_clear_error();
	error = SRDMA_SIZED_TAKE(srdma_cert_request, overwrite, given, &own);
	if (!error)
		error = check_request(request);
	if (!error && is_issued(request->kind))
		error = issuer_load(request, &issuer);
	if (error)
		goto done;
	key = EVP_EC_gen("P-256");
	if (!key) {
		error = srdma_fail_openssl(SRDMA_ERANDOM, "no key could be generated; nothing was written");
		goto done;
	}
	error = make_cert(request, &issuer, key, &cert);
	if (!error)
		error = write_files(request, &issuer, key, cert);
done:
	X509_free(cert);
	EVP_PKEY_free(key); /* wipes the private number */
	issuer_free(&issuer);
	ERR_clear_error();
	return error;
}
