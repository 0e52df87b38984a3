/* SPDX-License-Identifier: Apache-2.0 */
/* Keys, certificates and revocation lists of any kind, as CAs of all sorts make them. Include test.h first. */
#ifndef TEST_PKI_H
#define TEST_PKI_H

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <time.h>

#define DAY 86400

struct pki {
	X509 *cert;
	EVP_PKEY *key;
};

struct pki_request {
	const char *name;          /* CN; NULL: none */
	const struct pki *issuer;  /* NULL: itself */
	EVP_PKEY *key;             /* taken over; NULL: a new one on P-256 */
	bool ca;
	const char *usage;         /* keyUsage; NULL: as usual */
	const char *extended;      /* NULL: none */
	const char *names;         /* subjectAltName, as in openssl.cnf; NULL: none */
	long from, to;             /* seconds from now; 0: yesterday, and in ten days */
	void (*change)(X509 *cert); /* before it is signed; NULL: nothing more */
};

static inline EVP_PKEY *pki_key(const char *curve)
{
	EVP_PKEY *key = EVP_EC_gen(curve);

	assert_non_null(key);
	return key;
}

/* One that describes its curve, P-256, instead of naming it. */
static inline EVP_PKEY *pki_explicit_key(void)
{
	EVP_PKEY *key = pki_key("P-256");

	assert_int_equal(EVP_PKEY_set_utf8_string_param(key, "encoding", "explicit"), 1);
	return key;
}

/* The public half of an RSA key. The factors of its modulus are unknown. */
static inline EVP_PKEY *pki_rsa(int bits)
{
	BIGNUM *n = BN_new(), *e = BN_new();
	OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
	OSSL_PARAM *params;
	EVP_PKEY *key = NULL;

	assert_int_equal(BN_rand(n, bits, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ODD), 1);
	assert_int_equal(BN_set_word(e, 65537), 1);
	OSSL_PARAM_BLD_push_BN(build, "n", n);
	OSSL_PARAM_BLD_push_BN(build, "e", e);
	params = OSSL_PARAM_BLD_to_param(build);
	assert_int_equal(EVP_PKEY_fromdata_init(context), 1);
	assert_int_equal(EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, params), 1);
	OSSL_PARAM_free(params);
	OSSL_PARAM_BLD_free(build);
	EVP_PKEY_CTX_free(context);
	BN_free(n);
	BN_free(e);
	return key;
}

static inline void pki_extend(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX context;
	X509_EXTENSION *extension;

	X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	assert_non_null(extension);
	assert_int_equal(X509_add_ext(cert, extension, -1), 1);
	X509_EXTENSION_free(extension);
}

static inline const EVP_MD *pki_digest(EVP_PKEY *key)
{
	int type = EVP_PKEY_get_base_id(key);

	return type == EVP_PKEY_ED25519 || type == EVP_PKEY_ED448 || type <= 0 ? NULL : EVP_sha256();
}

/* All that pki_free_all frees. */
static struct pki *pki_made;
static size_t pki_count;

/* For a teardown. */
static inline void pki_free_all(void)
{
	for (size_t i = 0; i < pki_count; i++) {
		X509_free(pki_made[i].cert);
		EVP_PKEY_free(pki_made[i].key);
	}
	free(pki_made);
	pki_made = NULL;
	pki_count = 0;
}

static inline struct pki pki_keep(struct pki made)
{
	pki_made = realloc(pki_made, (pki_count + 1) * sizeof *pki_made);
	assert_non_null(pki_made);
	return pki_made[pki_count++] = made;
}

static inline struct pki pki_make(struct pki_request r)
{
	static long serial = 1000;
	struct pki made = {.cert = X509_new(), .key = r.key ? r.key : pki_key("P-256")};
	X509 *issuer = r.issuer ? r.issuer->cert : made.cert;
	EVP_PKEY *signer = r.issuer ? r.issuer->key : made.key;
	X509_NAME *subject = X509_get_subject_name(made.cert);

	X509_set_version(made.cert, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(made.cert), ++serial);
	X509_gmtime_adj(X509_getm_notBefore(made.cert), r.from ? r.from : -DAY);
	X509_gmtime_adj(X509_getm_notAfter(made.cert), r.to ? r.to : 10 * DAY);
	X509_set_pubkey(made.cert, made.key);
	if (r.name)
		assert_int_equal(X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_UTF8, (const unsigned char *)r.name, -1, -1, 0), 1);
	X509_set_issuer_name(made.cert, X509_get_subject_name(issuer));
	pki_extend(made.cert, issuer, NID_basic_constraints, r.ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
	pki_extend(made.cert, issuer, NID_key_usage, r.usage ? r.usage : r.ca ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature");
	pki_extend(made.cert, issuer, NID_subject_key_identifier, "hash");
	pki_extend(made.cert, issuer, NID_authority_key_identifier, "keyid");
	if (r.extended)
		pki_extend(made.cert, issuer, NID_ext_key_usage, r.extended);
	if (r.names)
		pki_extend(made.cert, issuer, NID_subject_alt_name, r.names);
	if (r.change)
		r.change(made.cert);
	assert_true(X509_sign(made.cert, signer, pki_digest(signer)) > 0);
	ERR_clear_error();
	return pki_keep(made);
}

/* Certificates into a file, `count` of them, one after the other. */
static inline void pki_write(const char *file, const struct pki *const *certs, size_t count)
{
	FILE *out = fopen(file, "w");

	assert_non_null(out);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(PEM_write_X509(out, certs[i]->cert), 1);
	fclose(out);
}

#define PKI_WRITE(file, ...) \
	pki_write(file, (const struct pki *const[]){__VA_ARGS__}, sizeof((const struct pki *const[]){__VA_ARGS__}) / sizeof(struct pki *))

static inline void pki_write_key(const char *file, const struct pki *of)
{
	FILE *out = fopen(file, "w");

	assert_non_null(out);
	assert_int_equal(fchmod(fileno(out), 0600), 0);
	assert_int_equal(PEM_write_PrivateKey(out, of->key, NULL, NULL, 0, NULL, NULL), 1);
	fclose(out);
}

/* NAME.crt, with its certificate and that of its issuer, unless that is NULL; NAME.key, with its key. */
static inline void pki_save_chain(const char *name, const struct pki *of, const struct pki *issuer)
{
	const struct pki *const chain[] = {of, issuer};
	char path[64];

	snprintf(path, sizeof path, "%s.crt", name);
	pki_write(path, chain, issuer ? 2 : 1);
	snprintf(path, sizeof path, "%s.key", name);
	pki_write_key(path, of);
}

static inline void pki_save(const char *name, const struct pki *of)
{
	pki_save_chain(name, of, NULL);
}

struct pki_list {
	const struct pki *issuer;
	const struct pki *signer;        /* NULL: the issuer */
	const struct pki *key_id;        /* whose key it names; NULL: the signer's */
	bool no_key_id;
	const struct pki *revoked[4];
	long from, to;                   /* seconds from now; 0: an hour ago, and in ten days. `to` LONG_MIN: there is none */
	void (*change)(X509_CRL *crl);
};

static inline X509_CRL *pki_list(struct pki_list r)
{
	X509_CRL *crl = X509_CRL_new();
	ASN1_TIME *when = ASN1_TIME_new();
	X509V3_CTX context;

	X509_CRL_set_version(crl, X509_CRL_VERSION_2);
	X509_CRL_set_issuer_name(crl, X509_get_subject_name(r.issuer->cert));
	X509_CRL_set1_lastUpdate(crl, X509_gmtime_adj(when, r.from ? r.from : -3600));
	if (r.to != LONG_MIN)
		X509_CRL_set1_nextUpdate(crl, X509_gmtime_adj(when, r.to ? r.to : 10 * DAY));
	for (size_t i = 0; i < 4 && r.revoked[i]; i++) {
		X509_REVOKED *entry = X509_REVOKED_new();

		X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(r.revoked[i]->cert));
		X509_REVOKED_set_revocationDate(entry, X509_gmtime_adj(when, -7200));
		X509_CRL_add0_revoked(crl, entry);
	}
	if (!r.no_key_id) {
		X509_EXTENSION *key_id;

		X509V3_set_ctx(&context, (r.key_id ? r.key_id : r.signer ? r.signer : r.issuer)->cert, NULL, NULL, crl, 0);
		key_id = X509V3_EXT_conf_nid(NULL, &context, NID_authority_key_identifier, "keyid");
		assert_non_null(key_id);
		X509_CRL_add_ext(crl, key_id, -1);
		X509_EXTENSION_free(key_id);
	}
	if (r.change)
		r.change(crl);
	assert_true(X509_CRL_sign(crl, (r.signer ? r.signer : r.issuer)->key, EVP_sha256()) > 0);
	ASN1_TIME_free(when);
	ERR_clear_error();
	return crl;
}

/* Adds a list to a file, or begins the file with it. */
static inline void pki_write_list(const char *file, const char *mode, struct pki_list r)
{
	FILE *out = fopen(file, mode);
	X509_CRL *crl = pki_list(r);

	assert_non_null(out);
	assert_int_equal(PEM_write_X509_CRL(out, crl), 1);
	X509_CRL_free(crl);
	fclose(out);
}

/* An extension with any content, for certificates, lists and entries. */
static inline X509_EXTENSION *pki_extension(const char *oid, bool critical, const char *der, int length)
{
	ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
	ASN1_OBJECT *object = OBJ_txt2obj(oid, 1);
	X509_EXTENSION *extension;

	ASN1_OCTET_STRING_set(value, (const unsigned char *)der, length);
	extension = X509_EXTENSION_create_by_OBJ(NULL, object, critical, value);
	assert_non_null(extension);
	ASN1_OCTET_STRING_free(value);
	ASN1_OBJECT_free(object);
	return extension;
}

#endif
