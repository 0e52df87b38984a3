/* SPDX-License-Identifier: Apache-2.0 */
#include "peer_names.h"

#include "array.h"
#include "cert.h"
#include "log.h"
#include "utf8.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const words[] = {"cn", "uri", "email", "dns", "pin", "ip"};

const char *srdma_name_kind_name(enum srdma_name_kind kind)
{
	return (unsigned)kind < SRDMA_NAME_KINDS ? words[kind] : NULL;
}

static bool has_kind(const struct srdma_name_order *order, enum srdma_name_kind kind)
{
	for (unsigned i = 0; i < order->count; i++)
		if (order->kinds[i] == kind)
			return true;
	return false;
}

int srdma_name_order_parse(const char *text, struct srdma_name_order *out)
{
	struct srdma_name_order order = {0};
	const char *at = text ? text : "cn,uri,email,dns";

	for (;; at++) {
		enum srdma_name_kind kind = 0;
		size_t length;

		at += strspn(at, " \t");
		length = strcspn(at, ", \t");
		/* An IP address is no identity, since it only locates a peer. */
		while (kind < SRDMA_NAME_IP && (strlen(words[kind]) != length || strncmp(words[kind], at, length) != 0))
			kind++;
		if (kind == SRDMA_NAME_IP)
			return srdma_fail(-EINVAL, "identity-from: '%.*s' is not a kind of name; give cn, uri, email, dns or pin", (int)length, at);
		if (has_kind(&order, kind))
			return srdma_fail(-EINVAL, "identity-from: '%s' appears twice", words[kind]);
		order.kinds[order.count++] = kind;
		at += length + strspn(at + length, " \t");
		if (*at == '\0')
			break;
		if (*at != ',')
			return srdma_fail(-EINVAL, "identity-from: there is no comma before '%s'", at);
	}
	*out = order;
	return 0;
}

/* Room for one more name. */
static struct srdma_cert_name *grow(struct srdma_peer_names *names)
{
	/* A power of two is full. */
	if ((names->count & (names->count - 1)) == 0) {
		size_t room = names->count ? 2 * names->count : 1;
		struct srdma_cert_name *list = realloc(names->list, room * sizeof *list);

		if (!list)
			return NULL;
		names->list = list;
	}
	return &names->list[names->count];
}

static int add(struct srdma_peer_names *names, enum srdma_name_kind kind, const void *text, size_t length, bool ascii)
{
	struct srdma_cert_name *name = grow(names);
	char *copy = name ? malloc(length + 1) : NULL;
	bool whole;

	if (!copy)
		return srdma_fail(-ENOMEM, "out of memory");
	memcpy(copy, text, length);
	copy[length] = '\0';
	whole = srdma_utf8_make_shown(copy, length) && length > 0;
	for (size_t i = 0; i < length; i++) {
		whole = whole && (!ascii || (unsigned char)copy[i] < 0x80);
		if (kind == SRDMA_NAME_DNS && copy[i] >= 'A' && copy[i] <= 'Z')
			copy[i] = (char)(copy[i] - 'A' + 'a');
	}
	*name = (struct srdma_cert_name){.size = sizeof *name, .kind = kind, .whole = whole, .text = copy};
	names->count++;
	return 0;
}

/* Converts PrintableString, T61String, BMPString and the like to UTF-8. A text that breaks the rules of its type counts as not whole. */
static int add_common_name(struct srdma_peer_names *names, const ASN1_STRING *value)
{
	unsigned char *text = NULL;
	int length = ASN1_STRING_to_UTF8(&text, value), ret;

	if (length < 0) {
		ERR_clear_error();
		ret = add(names, SRDMA_NAME_CN, ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value), false);
		if (ret == 0)
			names->list[names->count - 1].whole = false;
		return ret;
	}
	ret = add(names, SRDMA_NAME_CN, text, (size_t)length, false);
	OPENSSL_free(text);
	return ret;
}

static int read_common_names(struct srdma_peer_names *names, X509 *cert)
{
	const X509_NAME *subject = X509_get_subject_name(cert);
	int ret = 0;

	for (int at = -1; ret == 0 && (at = X509_NAME_get_index_by_NID(subject, NID_commonName, at)) >= 0;)
		ret = add_common_name(names, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
	return ret;
}

static int add_address(struct srdma_peer_names *names, const ASN1_STRING *value)
{
	int length = ASN1_STRING_length(value);
	char text[INET6_ADDRSTRLEN] = "";

	if (length == 4 || length == 16)
		inet_ntop(length == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(value), text, sizeof text);
	return add(names, SRDMA_NAME_IP, text, strlen(text), true);
}

static int add_alternative(struct srdma_peer_names *names, const GENERAL_NAME *general)
{
	static const struct {
		int type;
		enum srdma_name_kind kind;
	} kinds[] = {{GEN_URI, SRDMA_NAME_URI}, {GEN_EMAIL, SRDMA_NAME_EMAIL}, {GEN_DNS, SRDMA_NAME_DNS}};
	const ASN1_STRING *value;
	int type;

	value = GENERAL_NAME_get0_value(general, &type);
	for (size_t i = 0; i < SRDMA_COUNT(kinds); i++)
		if (kinds[i].type == type)
			return add(names, kinds[i].kind, ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value), true);
	return type == GEN_IPADD ? add_address(names, value) : 0;
}

static int read_alternative_names(struct srdma_peer_names *names, X509 *cert)
{
	GENERAL_NAMES *all = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	int ret = 0;

	for (int i = 0; ret == 0 && i < sk_GENERAL_NAME_num(all); i++)
		ret = add_alternative(names, sk_GENERAL_NAME_value(all, i));
	GENERAL_NAMES_free(all);
	ERR_clear_error();
	return ret;
}

/* The only name of this kind; NULL: there is none, there are several, or it is not whole. */
static const char *only_name(const struct srdma_peer_names *names, enum srdma_name_kind kind)
{
	const char *only = NULL;

	for (size_t i = 0; i < names->count; i++) {
		const struct srdma_cert_name *name = &names->list[i];

		if (name->kind != kind)
			continue;
		if (!name->whole || (only && strcmp(only, name->text) != 0))
			return NULL;
		only = name->text;
	}
	return only;
}

static bool looks_like_uri(const char *text)
{
	return strstr(text, "://") || strncasecmp(text, "urn:", 4) == 0;
}

static bool looks_like_pin(const char *text)
{
	return strncasecmp(text, SRDMA_PIN_PREFIX, strlen(SRDMA_PIN_PREFIX)) == 0;
}

/* A name of one kind must not pass for a name of another kind, which its CA may have checked more carefully. */
static bool is_fit(const struct srdma_name_order *order, enum srdma_name_kind kind, const char *text)
{
	if (strlen(text) >= SRDMA_NAME_SIZE || looks_like_pin(text))
		return false;
	if (kind == SRDMA_NAME_DNS && strchr(text, '*'))
		return false;
	return !has_kind(order, SRDMA_NAME_URI) || looks_like_uri(text) == (kind == SRDMA_NAME_URI);
}

static const char *choose(const struct srdma_peer_names *names, const struct srdma_name_order *order)
{
	for (unsigned i = 0; i < order->count; i++) {
		enum srdma_name_kind kind = order->kinds[i];
		const char *text = kind == SRDMA_NAME_PIN ? NULL : only_name(names, kind);

		if (kind == SRDMA_NAME_PIN)
			break;
		if (text && is_fit(order, kind, text))
			return text;
	}
	return names->pin;
}

int srdma_peer_names_read(X509 *cert, const struct srdma_name_order *order, struct srdma_peer_names *out)
{
	struct srdma_peer_names names = {.identity = ""};
	unsigned char pin[SRDMA_PIN_SIZE];
	int ret = srdma_cert_pin(cert, pin);

	if (ret == 0)
		ret = read_common_names(&names, cert);
	if (ret == 0)
		ret = read_alternative_names(&names, cert);
	if (ret != 0) {
		srdma_peer_names_clear(&names);
		return ret;
	}
	srdma_pin_format(pin, names.pin);
	snprintf(names.identity, sizeof names.identity, "%s", choose(&names, order));
	*out = names;
	return 0;
}

void srdma_peer_names_format(const struct srdma_peer_names *names, char *out, size_t size)
{
	size_t used = 0;

	out[0] = '\0';
	for (size_t i = 0; i < names->count; i++) {
		const struct srdma_cert_name *name = &names->list[i];

		used += (size_t)snprintf(out + used, size - used, "%s%s:%s", i ? ", " : "", words[name->kind], name->text);
		if (used >= size) {
			memcpy(out + size - 4, "...", 4);
			return;
		}
	}
}

void srdma_peer_names_clear(struct srdma_peer_names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free((char *)(uintptr_t)names->list[i].text);
	free(names->list);
	*names = (struct srdma_peer_names){.identity = ""};
}

int srdma_peer_names_check(const char *text)
{
	size_t length = text ? strnlen(text, SRDMA_NAME_SIZE) : 0, size;
	unsigned char pin[SRDMA_PIN_SIZE];
	uint32_t code;

	if (length == 0)
		return srdma_fail(-EINVAL, "an identity needs a name: clients that show no certificate cannot be listed");
	if (length == SRDMA_NAME_SIZE)
		return srdma_fail(-EINVAL, "the identity %.40s...: a name has at most %d bytes", text, SRDMA_NAME_SIZE - 1);
	for (size_t i = 0; i < length; i += size) {
		size = srdma_utf8_decode(text + i, length - i, &code);
		if (size == 0 || !srdma_utf8_is_shown(code))
			return srdma_fail(-EINVAL, "the identity '%s': a name is UTF-8 without control, bidirectional and invisible characters",
					  text);
	}
	return looks_like_pin(text) ? srdma_pin_parse(text, pin) : 0;
}
