/* SPDX-License-Identifier: Apache-2.0 */
#include "verify_text.h"

#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

const char *srdma_verify_text(long error)
{
	switch (error) {
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
		return "no CA in the CA file (--ca, --client-ca) has issued it; add the CA that did, and add the CAs in between "
		       "to the peer's certificate file";
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
		return "self-signed certificate, which is not in the CA file; add it there, or verify a server by its pin (securdma cert pin, --pin)";
	case X509_V_ERR_CERT_HAS_EXPIRED: return "certificate has expired; its owner needs a new one";
	case X509_V_ERR_CERT_NOT_YET_VALID: return "certificate is not valid yet; check the clocks of both machines";
	case X509_V_ERR_INVALID_PURPOSE:
		return "unsuitable certificate purpose: a server needs a server's certificate, a client a client's, and an agent a peer's "
		       "(securdma cert server, client, peer)";
	case X509_V_ERR_INVALID_CA: return "a certificate that is not a CA's has issued it";
	case X509_V_ERR_CERT_REVOKED: return "certificate revoked by its CA";
	case X509_V_ERR_UNABLE_TO_GET_CRL: return "there is no revocation list of the CA that issued it; put one into the list file (--crl, --client-crl)";
	case X509_V_ERR_CRL_HAS_EXPIRED: return "CRL has expired; get a new revocation list from the CA";
	case X509_V_ERR_CRL_NOT_YET_VALID: return "CRL is not valid yet; check the clocks of both machines";
	case X509_V_ERR_EE_KEY_TOO_SMALL:
	case X509_V_ERR_CA_KEY_TOO_SMALL: return "its key, or its CA's, is too short; RSA keys need 2048 bits";
	case X509_V_ERR_CA_MD_TOO_WEAK: return "it, or its CA, is signed with a digest that is too weak, such as SHA-1";
	default: return X509_verify_cert_error_string(error);
	}
}

const char *srdma_alert_text(int reason)
{
	switch (reason) {
	case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED: return "it requires one, and none was shown; give a certificate and its key (--cert, --key)";
	case SSL_R_TLSV1_ALERT_UNKNOWN_CA: return "it does not know the CA that issued it (unknown ca)";
	case SSL_R_TLSV1_ALERT_ACCESS_DENIED: return "it denies access";
	case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE: return "it is invalid; see the peer's log";
	case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE: return "its purpose or kind does not suit this end of a connection";
	case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED: return "it was revoked (certificate revoked)";
	case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED: return "it has expired, or is not valid yet (certificate expired)";
	case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN: return "see the peer's log";
	default: return NULL;
	}
}
