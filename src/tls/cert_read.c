/* SPDX-License-Identifier: Apache-2.0 */
#include "cert.h"
#include "log.h"
#include "peer_chain.h"
#include "sized.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int srdma_cert_pin(X509 *cert, unsigned char pin[SRDMA_PIN_SIZE])
{
	unsigned char *der = NULL;
	int length = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
	int ok;

	if (length <= 0)
		return srdma_fail_openssl(-EINVAL, "the certificate's public key can't be encoded");
	ok = EVP_Digest(der, (size_t)length, pin, NULL, EVP_sha256(), NULL);
	OPENSSL_free(der);
	return ok == 1 ? 0 : srdma_fail_openssl(-ENOMEM, "cannot take the SHA-256 of the certificate's public key");
}

int srdma_pin_parse(const char *text, unsigned char pin[SRDMA_PIN_SIZE])
{
	const size_t prefix = sizeof SRDMA_PIN_PREFIX - 1;
	unsigned char bytes[SRDMA_PIN_SIZE];

	if (!text || strlen(text) != prefix + 2 * sizeof bytes || strncasecmp(text, SRDMA_PIN_PREFIX, prefix) != 0)
		goto malformed;
	for (size_t i = 0; i < sizeof bytes; i++) {
		int high = OPENSSL_hexchar2int((unsigned char)text[prefix + 2 * i]);
		int low = OPENSSL_hexchar2int((unsigned char)text[prefix + 2 * i + 1]);

		if (high < 0 || low < 0)
			goto malformed;
		bytes[i] = (unsigned char)(high << 4 | low);
	}
	memcpy(pin, bytes, sizeof bytes);
	return 0;

malformed:
	ERR_clear_error();
	return srdma_fail(-EINVAL,
			  "the pin '%.90s' is not '" SRDMA_PIN_PREFIX "' and 64 hexadecimal digits; "
			  "'securdma cert pin FILE' prints the pin of a certificate",
			  text ? text : "");
}

void srdma_pin_format(const unsigned char *pin, char out[SRDMA_PIN_TEXT_SIZE])
{
	char *at = out + sizeof SRDMA_PIN_PREFIX - 1;

	memcpy(out, SRDMA_PIN_PREFIX, sizeof SRDMA_PIN_PREFIX);
	for (size_t i = 0; i < SRDMA_PIN_SIZE; i++, at += 2)
		snprintf(at, 3, "%02x", pin[i]);
}

const char *srdma_cert_key_problem(X509 *cert)
{
	unsigned char *der = NULL;
	int length = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
	const char *problem = length > 0 ? srdma_key_problem(der, (size_t)length) : "it has no key";

	OPENSSL_free(der);
	ERR_clear_error();
	/* UINT32_MAX means that the certificate does not limit its use. */
	if (!problem && X509_check_ca(cert) != 1 && !(X509_get_key_usage(cert) & X509v3_KU_DIGITAL_SIGNATURE))
		problem = "its key usage does not allow digital signatures";
	return problem;
}

int srdma_cert_check_readable(const char *what, const char *file)
{
	if (access(file, R_OK) == 0)
		return 0;
	return srdma_fail(errno == ENOENT ? -ENOENT : errno == EACCES ? -EACCES : SRDMA_ECONFIG,
			  "cannot read the %s %s: %s; see `securdma cert --help` to make one", what, file,
			  strerror(errno));
}

static int open_for_reading(const char *path, const char *what, BIO **out)
{
	FILE *file = fopen(path, "re");
	int error = errno;

	if (!file)
		return srdma_fail(-error, "cannot read %s %s: %s; check the path and the permissions", what, path,
				  strerror(error));
	*out = BIO_new_fp(file, BIO_CLOSE);
	if (!*out) {
		fclose(file);
		return srdma_fail(-ENOMEM, "no memory to read %s", path);
	}
	return 0;
}

int srdma_cert_load(const char *path, const char *what, X509 **out)
{
	BIO *bio;
	int error = open_for_reading(path, what, &bio);

	if (error)
		return error;
	*out = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	BIO_free(bio);
	return *out ? 0 : srdma_fail_openssl(SRDMA_ECONFIG, "%s %s holds no valid certificate in PEM form", what, path);
}

int srdma_cert_load_all(const char *path, const char *what, STACK_OF(X509) **out)
{
	STACK_OF(X509) *certs = sk_X509_new_null();
	BIO *bio = NULL;
	X509 *cert;
	int error = certs ? open_for_reading(path, what, &bio) : srdma_fail(-ENOMEM, "out of memory");

	while (!error && (cert = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL)) != NULL)
		if (sk_X509_push(certs, cert) <= 0) {
			X509_free(cert);
			error = srdma_fail(-ENOMEM, "out of memory");
		}
	BIO_free(bio);
	ERR_clear_error();
	if (error)
		sk_X509_pop_free(certs, X509_free);
	else
		*out = certs;
	return error;
}

int srdma_cert_no_password(char *buffer, int size, int writing, void *arg)
{
	(void)buffer, (void)size, (void)writing, (void)arg;
	return -1;
}

int srdma_cert_load_key(const char *path, const char *what, EVP_PKEY **out)
{
	BIO *bio;
	int error = open_for_reading(path, what, &bio);

	if (error)
		return error;
	*out = PEM_read_bio_PrivateKey(bio, NULL, srdma_cert_no_password, NULL);
	BIO_free(bio);
	return *out ? 0
		    : srdma_fail_openssl(SRDMA_ECONFIG, "%s %s holds no private key in PEM form without a password",
					 what, path);
}

/* Moves the content of `bio` to `out`. Marks the end of a text that it cuts to fit. */
static void take_text(BIO *bio, char *out, size_t size)
{
	char *data;
	long length = BIO_get_mem_data(bio, &data);

	snprintf(out, size, "%.*s", (int)length, data);
	if (length >= (long)size)
		memcpy(out + size - 4, "...", 4);
	(void)BIO_reset(bio);
}

void srdma_cert_format_name(const X509_NAME *name, char *out, size_t size)
{
	BIO *bio = BIO_new(BIO_s_mem());

	out[0] = '\0';
	if (bio && X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) >= 0)
		take_text(bio, out, size);
	BIO_free(bio);
}

/* Escapes all text to printable ASCII: anyone may have made the certificate, and its text goes to a terminal or a log. */
#define ESCAPES (ASN1_STRFLGS_ESC_CTRL | ASN1_STRFLGS_ESC_MSB | ASN1_STRFLGS_UTF8_CONVERT)

static void describe_subject(X509 *cert, BIO *bio, struct srdma_cert_info *info)
{
	const X509_NAME *subject = X509_get_subject_name(cert);
	int index = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);

	srdma_cert_format_name(subject, info->subject, sizeof info->subject);
	srdma_cert_format_name(X509_get_issuer_name(cert), info->issuer, sizeof info->issuer);
	if (index >= 0)
		ASN1_STRING_print_ex(bio, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, index)), ESCAPES);
	take_text(bio, info->common_name, sizeof info->common_name);
}

static void describe_ip(const ASN1_OCTET_STRING *ip, BIO *bio)
{
	int length = ASN1_STRING_length(ip);
	char text[INET6_ADDRSTRLEN] = "malformed";

	if (length == 4 || length == 16)
		inet_ntop(length == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(ip), text, sizeof text);
	BIO_printf(bio, "IP:%s", text);
}

static void describe_names(X509 *cert, BIO *bio, struct srdma_cert_info *info)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		int type;
		void *value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type);

		if (i > 0)
			BIO_puts(bio, ", ");
		switch (type) {
		case GEN_IPADD: describe_ip(value, bio); continue;
		case GEN_DNS: BIO_puts(bio, "DNS:"); break;
		case GEN_EMAIL: BIO_puts(bio, "email:"); break;
		case GEN_URI: BIO_puts(bio, "URI:"); break;
		default: BIO_puts(bio, "other"); continue;
		}
		/* Commas are escaped, since one name could otherwise pass for two. */
		ASN1_STRING_print_ex(bio, value, ESCAPES | ASN1_STRFLGS_ESC_2253);
	}
	GENERAL_NAMES_free(names);
	take_text(bio, info->names, sizeof info->names);
}

static void describe_key(X509 *cert, BIO *bio, struct srdma_cert_info *info)
{
	EVP_PKEY *key = X509_get0_pubkey(cert);
	char group[32];

	if (!key)
		BIO_puts(bio, "unknown");
	else if (EVP_PKEY_get_base_id(key) != EVP_PKEY_EC)
		BIO_printf(bio, "%s %d", OBJ_nid2sn(EVP_PKEY_get_base_id(key)), EVP_PKEY_get_bits(key));
	else if (EVP_PKEY_get_group_name(key, group, sizeof group, NULL))
		BIO_printf(bio, "EC %s", group);
	else
		BIO_printf(bio, "EC %d", EVP_PKEY_get_bits(key));
	take_text(bio, info->key, sizeof info->key);
}

static int describe_validity(X509 *cert, struct srdma_cert_info *info)
{
	struct tm from, to;

	if (!ASN1_TIME_to_tm(X509_get0_notBefore(cert), &from) || !ASN1_TIME_to_tm(X509_get0_notAfter(cert), &to))
		return SRDMA_ECONFIG;
	info->not_before = (int64_t)timegm(&from);
	info->not_after = (int64_t)timegm(&to);
	return 0;
}

static int describe(X509 *cert, BIO *bio, struct srdma_cert_info *info)
{
	unsigned char pin[SRDMA_PIN_SIZE];
	int error = srdma_cert_pin(cert, pin);

	if (error)
		return error;
	srdma_pin_format(pin, info->pin);
	describe_subject(cert, bio, info);
	describe_names(cert, bio, info);
	describe_key(cert, bio, info);
	if (srdma_cert_key_problem(cert))
		snprintf(info->key_problem, sizeof info->key_problem, "%s", srdma_cert_key_problem(cert));
	i2a_ASN1_INTEGER(bio, X509_get0_serialNumber(cert));
	take_text(bio, info->serial, sizeof info->serial);
	info->is_ca = X509_check_ca(cert) == 1;
	info->self_signed = X509_self_signed(cert, 1) == 1;
	info->server_auth = X509_check_purpose(cert, X509_PURPOSE_SSL_SERVER, 0) == 1;
	info->client_auth = X509_check_purpose(cert, X509_PURPOSE_SSL_CLIENT, 0) == 1;
	return describe_validity(cert, info);
}

int srdma_cert_describe(X509 *cert, struct srdma_cert_info *info)
{
	struct srdma_cert_info result = {.size = sizeof result};
	BIO *bio = BIO_new(BIO_s_mem());
	int error = bio ? describe(cert, bio, &result) : srdma_fail(-ENOMEM, "no memory to describe a certificate");

	BIO_free(bio);
	ERR_clear_error(); /* the extensions' parsers leave errors in the queue */
	if (!error)
		*info = result;
	return error;
}

int srdma_cert_read_sized(const char *cert_file, struct srdma_cert_info *info, size_t size)
{
	struct srdma_cert_info own;
	X509 *cert = NULL;
	int error;

	ERR_clear_error();
	if (!cert_file || !info)
		return srdma_fail(-EINVAL, "the certificate file or the place for its description is NULL");
	error = srdma_cert_load(cert_file, "certificate", &cert);
	if (error)
		return error;
	error = srdma_cert_describe(cert, &own);
	X509_free(cert);
	if (error == 0)
		srdma_sized_fill(info, size, &own, sizeof own);
	return error && error != -ENOMEM ? srdma_fail(SRDMA_ECONFIG, "the certificate %s is malformed", cert_file) : error;
}
