/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of certificates, keys, CAs and lists, so that their faults show before a peer meets them. */
#include "cert.h"
#include "log.h"
#include "sized.h"
#include "verdict.h"
#include "verify_text.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define DAY         86400
#define SOON_DAYS   30
#define HOW_TO_MAKE "make one (see securdma cert --help)"
#define CLOCK       "check the clock of this machine (timedatectl)"

/* ---- dates ----------------------------------------------------------------------------------------------------- */

static void format_day(const ASN1_TIME *at, char *text, size_t size)
{
	struct tm utc;

	if (ASN1_TIME_to_tm(at, &utc) != 1 || strftime(text, size, "%Y-%m-%d", &utc) == 0)
		snprintf(text, size, "an unknown day");
}

/* Seconds from now; an unreadable time counts as past. */
static int64_t seconds_until(const ASN1_TIME *at)
{
	int days = 0, seconds = 0;

	if (!at || ASN1_TIME_diff(&days, &seconds, NULL, at) != 1)
		return -1;
	return (int64_t)days * DAY + seconds;
}

static bool is_expired(X509 *cert)
{
	return seconds_until(X509_get0_notAfter(cert)) < 0;
}

static bool is_early(X509 *cert)
{
	return seconds_until(X509_get0_notBefore(cert)) > 0;
}

static void judge_dates(struct srdma_verdict *verdict, X509 *cert, const char *file)
{
	int64_t days = seconds_until(X509_get0_notAfter(cert)) / DAY;
	char from[32], until[32], name[128];

	format_day(X509_get0_notBefore(cert), from, sizeof from);
	format_day(X509_get0_notAfter(cert), until, sizeof until);
	srdma_cert_format_name(X509_get_subject_name(cert), name, sizeof name);
	if (is_expired(cert))
		srdma_verdict_take(verdict, SRDMA_CHECK_FAIL, 0, "make a new one with 'securdma cert'",
				   "the certificate %s (%s) expired on %s: peers refuse it", file, name, until);
	else if (is_early(cert))
		srdma_verdict_take(verdict, SRDMA_CHECK_WARN, 0, CLOCK,
				   "the certificate %s (%s) is not valid before %s: until then peers refuse it", file, name, from);
	else if (days < SOON_DAYS)
		srdma_verdict_take(verdict, SRDMA_CHECK_WARN, 0, "make a new one with 'securdma cert'",
				   "the certificate %s (%s) expires in %lld day%s, on %s", file, name, (long long)days, SRDMA_S(days), until);
	else
		srdma_verdict_take(verdict, SRDMA_CHECK_OK, 0, NULL, "%s (%s) is valid until %s, %lld day%s", file, name, until,
				   (long long)days, SRDMA_S(days));
}

/* ---- this end's certificate ----------------------------------------------------------------------------------------- */

static const char *end_name(enum srdma_cert_kind kind)
{
	return kind == SRDMA_CERT_SERVER ? "server" : "client";
}

static void judge_purpose(struct srdma_verdict *verdict, X509 *cert, const char *file, enum srdma_cert_kind kind)
{
	bool server = X509_check_purpose(cert, X509_PURPOSE_SSL_SERVER, 0) == 1;
	bool client = X509_check_purpose(cert, X509_PURPOSE_SSL_CLIENT, 0) == 1;
	char advice[160];

	if (kind == SRDMA_CERT_SERVER ? server : client)
		return;
	snprintf(advice, sizeof advice, "give a %s certificate; 'securdma cert %s' makes one", end_name(kind), end_name(kind));
	srdma_verdict_take(verdict, SRDMA_CHECK_FAIL, 0, advice, "%s is %s, and cannot be used by a %s: peers refuse it", file,
			   X509_check_ca(cert) == 1 ? "a CA certificate"
			   : server		    ? "a server certificate"
			   : client		    ? "a client certificate"
						    : "a certificate for another purpose",
			   end_name(kind));
}

/* A client that verifies with a CA looks for the name that it connects to. */
static void judge_names(struct srdma_verdict *verdict, X509 *cert, const char *file)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	int hosts = 0;

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		int type = sk_GENERAL_NAME_value(names, i)->type;

		hosts += type == GEN_DNS || type == GEN_IPADD;
	}
	GENERAL_NAMES_free(names);
	if (hosts == 0)
		srdma_verdict_take(verdict, SRDMA_CHECK_WARN, 0, "make one with names (securdma cert server --name HOST)",
				   "%s contains no DNS name or IP address: clients that verify it with a CA will refuse it",
				   file);
}

/* Each further certificate in the file must be the issuer of the one before. */
static void judge_order(struct srdma_verdict *verdict, STACK_OF(X509) *certs, const char *file)
{
	char name[128];

	for (int i = 1; i < sk_X509_num(certs); i++) {
		X509 *cert = sk_X509_value(certs, i);

		srdma_cert_format_name(X509_get_subject_name(cert), name, sizeof name);
		if (X509_check_issued(cert, sk_X509_value(certs, i - 1)) != X509_V_OK)
			srdma_verdict_take(verdict, SRDMA_CHECK_WARN, 0, "put the certificate first, then its issuer, then the issuer of that",
					   "certificate %d in %s (%s) has not issued the one before it: peers may not be able to follow the chain",
					   i + 1, file, name);
		else if (is_expired(cert))
			srdma_verdict_take(verdict, SRDMA_CHECK_WARN, 0, "replace it with its successor", "certificate %d in %s (%s), of a CA, has expired",
					   i + 1, file, name);
	}
}

/* Verifies the chain as a peer that trusts `ca_file` would. */
static void judge_chain(struct srdma_verdict *verdict, STACK_OF(X509) *certs, const char *file, const char *ca_file, enum srdma_cert_kind kind)
{
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *context = X509_STORE_CTX_new();
	X509 *cert = sk_X509_value(certs, 0);

	if (store && context && X509_STORE_load_file(store, ca_file) == 1 && X509_STORE_CTX_init(context, store, cert, certs) == 1) {
		/* Dates have their own verdict. */
		X509_STORE_CTX_set_flags(context, X509_V_FLAG_NO_CHECK_TIME | X509_V_FLAG_PARTIAL_CHAIN);
		X509_STORE_CTX_set_default(context, kind == SRDMA_CERT_SERVER ? "ssl_server" : "ssl_client");
		if (X509_verify_cert(context) != 1)
			srdma_verdict_take(verdict, SRDMA_CHECK_FAIL, 0,
					   NULL, "%s cannot be verified with %s: %s", file, ca_file,
					   srdma_verify_text(X509_STORE_CTX_get_error(context)));
		else
			srdma_verdict_take(verdict, SRDMA_CHECK_OK, 0, NULL, "%s can be verified with %s", file, ca_file);
	}
	X509_STORE_CTX_free(context);
	X509_STORE_free(store);
	ERR_clear_error();
}

/* ---- this end's key ------------------------------------------------------------------------------------------------- */

static void judge_key(struct srdma_verdict *verdict, X509 *cert, const char *cert_file, const char *key_file)
{
	EVP_PKEY *key = NULL;
	int ret = srdma_cert_load_key(key_file, "the private key", &key);

	if (ret == SRDMA_ECONFIG)
		srdma_verdict_take(verdict, SRDMA_CHECK_FAIL, ret, "give the key file that 'securdma cert' wrote with the certificate",
				   "%s is not the unencrypted PEM private key of %s", key_file, cert_file);
	else if (ret != 0)
		srdma_verdict_take(verdict, SRDMA_CHECK_FAIL, ret, NULL, "%s", srdma_error_text());
	else if (X509_check_private_key(cert, key) != 1)
		srdma_verdict_take(verdict, SRDMA_CHECK_FAIL, 0, "give the key that was made with the certificate", "%s is not the private key of %s",
				   key_file, cert_file);
	else
		srdma_verdict_take(verdict, SRDMA_CHECK_OK, 0, NULL, "%s is the key of %s", key_file, cert_file);
	EVP_PKEY_free(key);
	ERR_clear_error();
}

/* The group may read the key, since the service may be its only member. */
static void judge_key_file(struct srdma_verdict *verdict, const char *key_file)
{
	struct stat status;
	char advice[512];

	if (stat(key_file, &status) != 0)
		return;
	snprintf(advice, sizeof advice, "chmod 0600 %s", key_file);
	if (status.st_mode & (S_IRWXO | S_IWGRP))
		srdma_verdict_take(verdict, SRDMA_CHECK_WARN, 0, advice, "%s has mode %04o: other users can %s the private key", key_file,
				   status.st_mode & 07777, status.st_mode & (S_IROTH | S_IXOTH) ? "read" : "replace");
	else
		srdma_verdict_take(verdict, SRDMA_CHECK_OK, 0, NULL, "%s has mode %04o", key_file, status.st_mode & 07777);
}

static void check_own(struct srdma_bench *bench, enum srdma_cert_kind kind, const char *cert_file, const char *key_file, const char *ca_file)
{
	struct srdma_verdict certificate = {0}, chain = {0}, key = {0}, mode = {0};
	STACK_OF(X509) *certs = NULL;
	X509 *cert = NULL;
	int ret = srdma_cert_load(cert_file, "the certificate", &cert);

	if (ret == 0)
		ret = srdma_cert_load_all(cert_file, "the certificate", &certs);
	if (ret != 0 || sk_X509_num(certs) <= 0) {
		if (ret == SRDMA_ECONFIG)
			srdma_fail(ret, "%s holds no usable PEM certificate", cert_file);
		srdma_verdict_take(&certificate, SRDMA_CHECK_FAIL, ret, HOW_TO_MAKE, "%s", srdma_error_text());
	} else {
		judge_dates(&certificate, cert, cert_file);
		judge_purpose(&certificate, cert, cert_file, kind);
		if (kind == SRDMA_CERT_SERVER)
			judge_names(&certificate, cert, cert_file);
		judge_order(&chain, certs, cert_file);
		if (ca_file)
			judge_chain(&chain, certs, cert_file, ca_file, kind);
		if (key_file)
			judge_key(&key, cert, cert_file, key_file);
	}
	if (key_file)
		judge_key_file(&mode, key_file);
	srdma_bench_report(bench, "certificate", &certificate);
	srdma_bench_report(bench, "certificate chain", &chain);
	srdma_bench_report(bench, "key", &key);
	srdma_bench_report(bench, "key file", &mode);
	X509_free(cert);
	sk_X509_pop_free(certs, X509_free);
}

int srdma_cert_check(enum srdma_cert_kind kind, const char *cert_file, const char *key_file, const char *ca_file, srdma_check_fn *fn,
		     void *arg)
{
	struct srdma_bench bench = {.fn = fn, .arg = arg};

	ERR_clear_error();
	if (!cert_file || (kind != SRDMA_CERT_SERVER && kind != SRDMA_CERT_CLIENT))
		return srdma_fail(-EINVAL, "a check needs a certificate file and its kind, server or client");
	check_own(&bench, kind, cert_file, key_file, ca_file);
	return srdma_bench_end(&bench);
}

/* ---- the certificates that verify peers -------------------------------------------------------------------------- */

/* Whether this certificate can verify those of `peers`; even then it may have a flaw worth a warning. */
static bool judge_anchor(struct srdma_verdict *verdict, X509 *cert, const char *file, enum srdma_cert_kind peers)
{
	int purpose = peers == SRDMA_CERT_SERVER ? X509_PURPOSE_SSL_SERVER : X509_PURPOSE_SSL_CLIENT;
	EVP_PKEY *key = X509_get0_pubkey(cert);
	char name[128], day[32];

	srdma_cert_format_name(X509_get_subject_name(cert), name, sizeof name);
	format_day(X509_get0_notAfter(cert), day, sizeof day);
	if (is_expired(cert)) {
		srdma_verdict_take(verdict, SRDMA_CHECK_WARN, 0, "replace it with the CA's new certificate",
				   "the CA certificate %s (%s) expired on %s: no %s that it issued is accepted", file, name, day, end_name(peers));
		return false;
	}
	if (X509_check_ca(cert) == 0 && X509_check_purpose(cert, purpose, 0) != 1) {
		srdma_verdict_take(verdict, SRDMA_CHECK_WARN, 0, "give the certificate of the CA",
				   "%s (%s) is not a CA certificate: no %s can be verified with it", file, name, end_name(peers));
		return false;
	}
	if (X509_check_ca(cert) == 0)
		srdma_verdict_take(verdict, SRDMA_CHECK_WARN, 0, "give the certificate of the CA",
				   "%s (%s) is not a CA certificate: it verifies only the %s that has this certificate", file, name,
				   end_name(peers));
	else if (is_early(cert))
		srdma_verdict_take(verdict, SRDMA_CHECK_WARN, 0, CLOCK, "the CA certificate %s (%s) is not valid yet", file, name);
	else if (!key || EVP_PKEY_get_security_bits(key) < 112)
		srdma_verdict_take(verdict, SRDMA_CHECK_WARN, 0, "make a CA with a longer key",
				   "the CA certificate %s (%s) has a key so short that TLS does not accept it", file, name);
	return true;
}

static void judge_anchors(struct srdma_verdict *verdict, STACK_OF(X509) *certs, const char *file, enum srdma_cert_kind peers, bool needed)
{
	int usable = 0, count = sk_X509_num(certs);
	struct srdma_verdict flaw = {0};

	for (int i = 0; i < count; i++)
		usable += judge_anchor(&flaw, sk_X509_value(certs, i), file, peers);
	if (flaw.text[0])
		srdma_verdict_take(verdict, usable == 0 && needed ? SRDMA_CHECK_FAIL : SRDMA_CHECK_WARN, 0, flaw.advice, "%s", flaw.text);
	else if (count == 1)
		judge_dates(verdict, sk_X509_value(certs, 0), file);
	else
		srdma_verdict_take(verdict, SRDMA_CHECK_OK, 0, NULL, "%s has %d CA certificates, and all are valid", file, count);
}

/* `peers`: the certificates that peers must show. `needed`: the end refuses a peer that none of them verifies. */
static void check_trust(struct srdma_bench *bench, const char *what, const char *file, enum srdma_cert_kind peers, bool needed)
{
	STACK_OF(X509) *certs = NULL;
	struct srdma_verdict verdict = {0};

	/* finish() reports a file that cannot be read. */
	if (srdma_cert_load_all(file, what, &certs) == 0 && sk_X509_num(certs) > 0)
		judge_anchors(&verdict, certs, file, peers, needed);
	srdma_bench_report(bench, what, &verdict);
	sk_X509_pop_free(certs, X509_free);
}

static void check_lists(struct srdma_bench *bench, const char *file, enum srdma_cert_kind peers)
{
	FILE *stream = fopen(file, "re");
	struct srdma_verdict verdict = {0};
	X509_CRL *list;
	char day[32];

	while (stream && (list = PEM_read_X509_CRL(stream, NULL, NULL, NULL)) != NULL) {
		const ASN1_TIME *next = X509_CRL_get0_nextUpdate(list);

		format_day(next, day, sizeof day);
		if (next && seconds_until(next) < 0)
			srdma_verdict_take(&verdict, SRDMA_CHECK_WARN, 0, "have the CA make a new list",
					   "a revocation list in %s expired on %s: no %s of its CA is accepted", file, day, end_name(peers));
		else
			srdma_verdict_take(&verdict, SRDMA_CHECK_OK, 0, NULL, "the lists in %s are valid", file);
		X509_CRL_free(list);
	}
	if (stream)
		fclose(stream);
	ERR_clear_error();
	srdma_bench_report(bench, "revocation list", &verdict);
}

/* ---- both ends --------------------------------------------------------------------------------------------------- */

/* Loading finds the faults that no check above looks for. `error` and `context` are its outcome. */
static int finish(struct srdma_bench *bench, int error, struct srdma_tls_context *context)
{
	struct srdma_verdict verdict = {0};

	srdma_tls_context_unref(&context);
	if (error != 0) {
		srdma_verdict_take(&verdict, SRDMA_CHECK_FAIL, error, NULL, "%s", srdma_error_text());
		srdma_bench_report(bench, "credentials", &verdict);
	}
	return srdma_bench_end(bench);
}

int srdma_tls_server_check(const struct srdma_tls_server_options *given, srdma_check_fn *fn, void *arg)
{
	struct srdma_bench bench = {.fn = fn, .arg = arg};
	struct srdma_tls_context *context = NULL;
	struct srdma_tls_server_options options;
	int ret = SRDMA_SIZED_TAKE(srdma_tls_server_options, allow_tls12, given, &options);

	if (ret != 0)
		return ret;
	ERR_clear_error();
	if (options.cert_file)
		check_own(&bench, SRDMA_CERT_SERVER, options.cert_file, options.key_file, NULL);
	if (options.client_ca_file)
		check_trust(&bench, "client CA", options.client_ca_file, SRDMA_CERT_CLIENT, !options.insecure_anonymous_clients);
	if (options.client_crl_file)
		check_lists(&bench, options.client_crl_file, SRDMA_CERT_CLIENT);
	ret = bench.error == 0 ? srdma_tls_server_new(&options, &context) : 0;
	return finish(&bench, ret, context);
}

int srdma_tls_client_check(const struct srdma_tls_client_options *given, srdma_check_fn *fn, void *arg)
{
	struct srdma_bench bench = {.fn = fn, .arg = arg};
	struct srdma_tls_context *context = NULL;
	struct srdma_tls_client_options options;
	int ret = SRDMA_SIZED_TAKE(srdma_tls_client_options, allow_tls12, given, &options);

	if (ret != 0)
		return ret;
	ERR_clear_error();
	if (options.cert_file)
		check_own(&bench, SRDMA_CERT_CLIENT, options.cert_file, options.key_file, NULL);
	if (options.ca_file)
		check_trust(&bench, "CA", options.ca_file, SRDMA_CERT_SERVER, true);
	if (options.crl_file)
		check_lists(&bench, options.crl_file, SRDMA_CERT_SERVER);
	ret = bench.error == 0 ? srdma_tls_client_new(&options, &context) : 0;
	return finish(&bench, ret, context);
}
