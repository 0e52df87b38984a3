/* SPDX-License-Identifier: Apache-2.0 */
/* Reading certificates and keys; pins: the SHA-256 of a certificate's public key, and its text form. */
#ifndef SRDMA_CERT_H
#define SRDMA_CERT_H

#include "securdma_cert.h"

#include <openssl/x509.h>

#define SRDMA_PIN_PREFIX "sha256:"

/* Computes the pin of `cert`: SHA-256 over its SubjectPublicKeyInfo in DER. Errors: -EINVAL, -ENOMEM. */
int srdma_cert_pin(X509 *cert, unsigned char pin[SRDMA_PIN_SIZE]);

/* Reads "sha256:" and 64 hexadecimal digits, in either case and with nothing around them. Errors: -EINVAL; `pin` is
 * then untouched. */
int srdma_pin_parse(const char *text, unsigned char pin[SRDMA_PIN_SIZE]);

/* Writes `pin` in the form that srdma_pin_parse reads, in lower case. */
void srdma_pin_format(const unsigned char *pin, char out[SRDMA_PIN_TEXT_SIZE]);

/* Writes a subject's or issuer's name in printable ASCII (RFC 2253). Marks the end of a name that it cuts to fit. */
void srdma_cert_format_name(const X509_NAME *name, char *out, size_t size);

/* As srdma_cert_read, of a certificate in memory. Errors: SRDMA_ECONFIG, -ENOMEM. */
int srdma_cert_describe(X509 *cert, struct srdma_cert_info *info);

/* Why TLS cannot use this certificate's key, to follow "it cannot be used for TLS: "; NULL: it can. Static. */
const char *srdma_cert_key_problem(X509 *cert);

/* `what` names the file in the error. Errors: -ENOENT, -EACCES, SRDMA_ECONFIG. */
int srdma_cert_check_readable(const char *what, const char *file);

/* Read the first certificate or private key of a PEM file; `what` names it in the error. A key with a password is an
 * error; the function never prompts. Errors: those of fopen(3), SRDMA_ECONFIG, -ENOMEM. */
int srdma_cert_load(const char *path, const char *what, X509 **out);
/* Reads all certificates. A file without any is no error. */
int srdma_cert_load_all(const char *path, const char *what, STACK_OF(X509) **out);
int srdma_cert_load_key(const char *path, const char *what, EVP_PKEY **out);
/* A pem_password_cb that refuses: a library must not prompt on the terminal, as OpenSSL does without a callback. */
int srdma_cert_no_password(char *buffer, int size, int writing, void *arg);

#endif
