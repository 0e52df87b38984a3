/* SPDX-License-Identifier: Apache-2.0 */
#include "peer_chain.h"

#include "cursor.h"

#include <string.h>

static const char not_der[] = "a certificate of it is malformed";
static const char bad_curve[] =
	"it has an EC key on a curve that TLS 1.3 does not sign with; P-256, P-384 and P-521 are accepted";
static const char bad_kind[] = "it has a key that is neither ECDSA, RSA, Ed25519, Ed448 nor ML-DSA";
static const char bad_rsa[] = "it has an RSA key that does not have 2048 to 4096 bits, or an exponent of more than 64 bits";

enum { DER_INTEGER = 0x02, DER_BITS = 0x03, DER_OID = 0x06, DER_SEQUENCE = 0x30, DER_VERSION = 0xa0 };

static bool skip(struct srdma_reader *r, size_t length, struct srdma_reader *content)
{
	if (r->overrun || length > r->left) {
		r->overrun = true;
		return false;
	}
	srdma_reader_init(content, r->at, length);
	r->at += length;
	r->left -= length;
	return true;
}

/* The next element, which must have this tag. */
static bool take(struct srdma_reader *r, uint8_t tag, struct srdma_reader *content)
{
	size_t length;

	if (srdma_get_u8(r) != tag)
		return false;
	length = srdma_get_u8(r);
	if (length > 0x80) {
		unsigned bytes = (unsigned)length - 0x80;

		if (bytes > 2)
			return false;
		length = bytes == 1 ? srdma_get_u8(r) : srdma_get_u16(r);
		if (length < (bytes == 1 ? 0x80u : 0x100u))
			return false;
	} else if (length == 0x80) {
		return false;
	}
	return skip(r, length, content);
}

static bool pass(struct srdma_reader *r, uint8_t tag)
{
	struct srdma_reader content;

	return take(r, tag, &content);
}

static bool equals(const struct srdma_reader *content, const char *bytes, size_t length)
{
	return content->left == length && memcmp(content->at, bytes, length) == 0;
}

#define IS(content, bytes) equals(content, bytes, sizeof(bytes) - 1)

/* A point is encoded by both coordinates, or by one and the sign of the other. */
static const char *ec_problem(struct srdma_reader *parameters, struct srdma_reader *point)
{
	struct srdma_reader curve;
	size_t size = 0;
	uint8_t form;

	if (take(parameters, DER_OID, &curve) && parameters->left == 0)
		size = IS(&curve, "\x2a\x86\x48\xce\x3d\x03\x01\x07") ? 32 /* P-256 */
		       : IS(&curve, "\x2b\x81\x04\x00\x22")	     ? 48 /* P-384 */
		       : IS(&curve, "\x2b\x81\x04\x00\x23")	     ? 66 /* P-521 */
								     : 0;
	if (size == 0)
		return bad_curve;
	form = srdma_get_u8(point);
	return (form == 4 && point->left == 2 * size) || ((form == 2 || form == 3) && point->left == size) ? NULL : not_der;
}

static unsigned bits_of(struct srdma_reader number)
{
	unsigned bits;

	while (number.left > 0 && number.at[0] == 0) {
		number.at++;
		number.left--;
	}
	if (number.left == 0 || number.left > SRDMA_CHAIN_BYTES)
		return 0;
	bits = (unsigned)number.left * 8;
	for (uint8_t mask = 0x80; !(number.at[0] & mask); mask >>= 1)
		bits--;
	return bits;
}

/* The cost of a verification grows with the square of the modulus, times the bits of the exponent. */
static const char *rsa_problem(struct srdma_reader *key)
{
	struct srdma_reader numbers, modulus, exponent;
	unsigned bits;

	if (!take(key, DER_SEQUENCE, &numbers) || key->left > 0 || !take(&numbers, DER_INTEGER, &modulus) ||
	    !take(&numbers, DER_INTEGER, &exponent) || numbers.left > 0)
		return not_der;
	bits = bits_of(modulus);
	return bits < SRDMA_RSA_BITS_MIN || bits > SRDMA_RSA_BITS_MAX || bits_of(exponent) > 64 ? bad_rsa : NULL;
}

/* Key types of one fixed size. */
static bool is_of_one_size(const struct srdma_reader *kind)
{
	return IS(kind, "\x2b\x65\x70") || IS(kind, "\x2b\x65\x71") ||	    /* Ed25519, Ed448 */
	       IS(kind, "\x60\x86\x48\x01\x65\x03\x04\x03\x11") ||	    /* ML-DSA-44 */
	       IS(kind, "\x60\x86\x48\x01\x65\x03\x04\x03\x12") || IS(kind, "\x60\x86\x48\x01\x65\x03\x04\x03\x13");
}

/* `info`: the content of a SubjectPublicKeyInfo. */
static const char *judge_key(struct srdma_reader *info)
{
	struct srdma_reader algorithm, kind, key;

	if (!take(info, DER_SEQUENCE, &algorithm) || !take(&algorithm, DER_OID, &kind) || !take(info, DER_BITS, &key) ||
	    info->left > 0 || srdma_get_u8(&key) != 0 || key.overrun)
		return not_der;
	if (IS(&kind, "\x2a\x86\x48\xce\x3d\x02\x01"))
		return ec_problem(&algorithm, &key);
	/* rsaEncryption, RSASSA-PSS */
	if (IS(&kind, "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01") || IS(&kind, "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a"))
		return rsa_problem(&key);
	return is_of_one_size(&kind) ? NULL : bad_kind;
}

const char *srdma_key_problem(const uint8_t *spki, size_t length)
{
	struct srdma_reader r, info;

	srdma_reader_init(&r, spki, length);
	return take(&r, DER_SEQUENCE, &info) && r.left == 0 ? judge_key(&info) : not_der;
}

/* RFC 5280, 4.1, up to the key. The fields behind it cost time in proportion to their length, and OpenSSL checks the signature last. */
static const char *judge_certificate(struct srdma_reader *r)
{
	struct srdma_reader whole, body, info;

	if (!take(r, DER_SEQUENCE, &whole) || r->left > 0 || !take(&whole, DER_SEQUENCE, &body))
		return not_der;
	if (body.left > 0 && body.at[0] == DER_VERSION && !pass(&body, DER_VERSION))
		return not_der;
	/* Serial number, signature algorithm, issuer, validity, subject. */
	if (!pass(&body, DER_INTEGER) || !pass(&body, DER_SEQUENCE) || !pass(&body, DER_SEQUENCE) || !pass(&body, DER_SEQUENCE) ||
	    !pass(&body, DER_SEQUENCE) || !take(&body, DER_SEQUENCE, &info))
		return not_der;
	return judge_key(&info);
}

static size_t get_u24(struct srdma_reader *r)
{
	size_t high = srdma_get_u8(r);

	return high << 16 | srdma_get_u16(r);
}

const char *srdma_chain_problem(const uint8_t *body, size_t length, bool tls13)
{
	struct srdma_reader r, list, certificate, rest;
	const char *problem = NULL;

	if (length > SRDMA_CHAIN_BYTES)
		return "its chain has more than 32768 bytes";
	srdma_reader_init(&r, body, length);
	if (tls13 && !skip(&r, srdma_get_u8(&r), &rest))
		return not_der;
	if (!skip(&r, get_u24(&r), &list) || r.left > 0)
		return not_der;
	for (unsigned count = 0; !problem && list.left > 0; count++) {
		if (count == SRDMA_CHAIN_CERTS)
			return "its chain has more than 8 certificates";
		if (!skip(&list, get_u24(&list), &certificate) || (tls13 && !skip(&list, srdma_get_u16(&list), &rest)))
			return not_der;
		problem = judge_certificate(&certificate);
	}
	return problem;
}
