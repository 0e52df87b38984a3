/* SPDX-License-Identifier: Apache-2.0 */
#include "trust.h"

#include "cert.h"
#include "log.h"
#include "revocation.h"
#include "tls.h"
#include "verify_text.h"

#include <stdio.h>

int srdma_trust_load(struct srdma_trust *trust, SSL_CTX *context, const char *ca_file, const char *crl_file)
{
	int ret = srdma_cert_check_readable("CA file", ca_file);

	if (ret != 0)
		return ret;
	if (SSL_CTX_load_verify_file(context, ca_file) != 1)
		return srdma_fail_openssl(SRDMA_ECONFIG, "%s holds no usable PEM CA certificate", ca_file);
	ret = srdma_cert_load_all(ca_file, "CA file", &trust->cas);
	if (ret == 0)
		ret = srdma_revocation_load(ca_file, true, &trust->lists);
	if (ret == 0 && crl_file)
		ret = srdma_cert_check_readable("revocation list", crl_file);
	if (ret == 0 && crl_file)
		ret = srdma_revocation_load(crl_file, false, &trust->lists);
	if (ret == 0)
		ret = srdma_revocation_match(trust->lists, trust->cas);
	return ret;
}

void srdma_trust_clear(struct srdma_trust *trust)
{
	sk_X509_pop_free(trust->cas, X509_free);
	srdma_revocation_free(&trust->lists);
	*trust = (struct srdma_trust){0};
}

static void describe(X509 *cert, char *out, size_t size)
{
	char subject[112], issuer[112];

	out[0] = '\0';
	if (!cert)
		return;
	srdma_cert_format_name(X509_get_subject_name(cert), subject, sizeof subject);
	srdma_cert_format_name(X509_get_issuer_name(cert), issuer, sizeof issuer);
	snprintf(out, size, " ('%s', issued by '%s')", subject, issuer);
}

static const char wrong_name[] = "the server's certificate is not for this name or address; connect to a name in the certificate, or give one with --server-name";

static int refuse(const struct srdma_trust *trust, X509_STORE_CTX *store, int error, X509 *culprit)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	const char *why = srdma_verify_text(error);
	char which[256];

	/* It decides the alert that the peer gets. */
	X509_STORE_CTX_set_error(store, error);
	describe(culprit, which, sizeof which);
	if (error == X509_V_ERR_APPLICATION_VERIFICATION)
		srdma_tls_refuse(ssl, SRDMA_ECERT, "the server's public key does not match the pin; if the server has a new key, get its pin with "
						   "'securdma cert pin', over a way that you trust");
	else if (error == X509_V_ERR_HOSTNAME_MISMATCH || error == X509_V_ERR_IP_ADDRESS_MISMATCH)
		srdma_tls_refuse(ssl, SRDMA_ECERT, "%s", trust->wrong_name ? trust->wrong_name : wrong_name);
	else if (error == X509_V_ERR_UNABLE_TO_GET_CRL)
		srdma_tls_refuse(ssl, SRDMA_ECERT,
				 "the peer's certificate is not acceptable: there is no revocation list of an issuer%s; add one to the list file (--crl, --client-crl)",
				 which);
	else
		srdma_tls_refuse(ssl, SRDMA_ECERT, "the peer's certificate is not acceptable: %s%s", why, which);
	return 0;
}

/* A pinned key replaces a CA's confirmation of the name; the period of validity still counts. */
static int verify_pin(const struct srdma_trust *trust, X509_STORE_CTX *store)
{
	X509 *cert = X509_STORE_CTX_get0_cert(store);
	unsigned char pin[SRDMA_PIN_SIZE];

	if (!cert || srdma_cert_pin(cert, pin) != 0 || CRYPTO_memcmp(pin, trust->pin, sizeof pin) != 0)
		return refuse(trust, store, X509_V_ERR_APPLICATION_VERIFICATION, cert);
	if (X509_cmp_current_time(X509_get0_notBefore(cert)) >= 0)
		return refuse(trust, store, X509_V_ERR_CERT_NOT_YET_VALID, cert);
	if (X509_cmp_current_time(X509_get0_notAfter(cert)) <= 0)
		return refuse(trust, store, X509_V_ERR_CERT_HAS_EXPIRED, cert);
	X509_STORE_CTX_set_error(store, X509_V_OK);
	return 1;
}

static int verify(X509_STORE_CTX *store, void *arg)
{
	const struct srdma_trust *trust = arg;
	X509 *culprit = NULL;
	int result = X509_V_OK;

	if ((trust->cas || !trust->has_pin) && X509_verify_cert(store) != 1)
		return refuse(trust, store, X509_STORE_CTX_get_error(store), X509_STORE_CTX_get_current_cert(store));
	/* The lists come last, since a list can be checked only with the certificate of its CA. */
	if (trust->cas && trust->lists)
		result = srdma_revocation_check(trust->lists, X509_STORE_CTX_get0_chain(store), trust->cas, trust->require_all_lists, &culprit);
	if (result != X509_V_OK)
		return refuse(trust, store, result, culprit);
	return trust->has_pin ? verify_pin(trust, store) : 1;
}

void srdma_trust_enforce(struct srdma_trust *trust, SSL_CTX *context)
{
	X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_PARTIAL_CHAIN);
	SSL_CTX_set_cert_verify_callback(context, verify, trust);
}
