/* SPDX-License-Identifier: Apache-2.0 */
/* The names in a certificate, as securdma shows them, and the one that identifies the peer. */
#include "test.h"

#include "pki.h"

#include "cert.h"
#include "peer_names.h"

static struct pki ca;

static int make_ca(void **state)
{
	ca = pki_make((struct pki_request){.name = "CA", .ca = true});
	return 0;
}

static int free_ca(void **state)
{
	pki_free_all();
	return 0;
}

static struct srdma_name_order order_of(const char *text)
{
	struct srdma_name_order order;

	if (srdma_name_order_parse(text, &order) != 0)
		fail_msg("%s", srdma_error_text());
	return order;
}

static struct srdma_peer_names names_of(struct pki_request request, const char *order_text)
{
	struct srdma_name_order order = order_of(order_text);
	struct srdma_peer_names names;
	struct pki made;

	request.issuer = &ca;
	made = pki_make(request);
	assert_int_equal(srdma_peer_names_read(made.cert, &order, &names), 0);
	return names;
}

/* NULL: the pin. */
static void assert_goes_by(struct pki_request request, const char *order, const char *identity)
{
	struct srdma_peer_names names = names_of(request, order);

	assert_string_equal(names.identity, identity ? identity : names.pin);
	assert_int_equal(strncmp(names.pin, "sha256:", 7), 0);
	srdma_peer_names_clear(&names);
}

#define WITH(...) ((struct pki_request){__VA_ARGS__})
#define ALL "URI:spiffe://prod/db,email:a@example.com,DNS:Host.Example.com,IP:192.0.2.1"

/* ---- the order ------------------------------------------------------------------------------------------------- */

TEST(first_kind_that_there_is_decides)
{
	assert_goes_by(WITH(.name = "alice", .names = ALL), NULL, "alice");
	assert_goes_by(WITH(.names = ALL), NULL, "spiffe://prod/db");
	assert_goes_by(WITH(.names = "DNS:host,email:a@example.com"), NULL, "a@example.com");
	assert_goes_by(WITH(.names = "DNS:Host.Example.com,IP:192.0.2.1"), NULL, "host.example.com");
	assert_goes_by(WITH(.name = "alice", .names = ALL), "uri", "spiffe://prod/db");
	assert_goes_by(WITH(.name = "alice", .names = ALL), "dns , email", "host.example.com");
	assert_goes_by(WITH(.name = "alice", .names = ALL), "email,cn", "a@example.com");
	assert_goes_by(WITH(.name = "alice"), "uri,cn", "alice");
}

TEST(certificate_without_such_a_name_goes_by_its_key)
{
	assert_goes_by(WITH(.name = NULL), NULL, NULL);
	assert_goes_by(WITH(.names = "IP:192.0.2.1"), NULL, NULL);
	assert_goes_by(WITH(.name = "alice"), "uri,dns", NULL);
	assert_goes_by(WITH(.name = "alice", .names = ALL), "pin", NULL);
	assert_goes_by(WITH(.name = "alice", .names = ALL), "pin,cn", NULL);
}

TEST(key_is_the_same_in_every_certificate)
{
	EVP_PKEY *key = pki_key("P-256");
	struct srdma_peer_names first, second;

	EVP_PKEY_up_ref(key);
	first = names_of(WITH(.key = key), NULL);
	second = names_of(WITH(.key = key, .names = "IP:192.0.2.1"), NULL);
	assert_string_equal(first.identity, second.identity);
	srdma_peer_names_clear(&first);
	srdma_peer_names_clear(&second);
	first = names_of(WITH(.name = NULL), NULL);
	second = names_of(WITH(.name = NULL), NULL);
	assert_string_not_equal(first.identity, second.identity);
	srdma_peer_names_clear(&first);
	srdma_peer_names_clear(&second);
}

TEST(bad_order_is_refused_with_the_reason)
{
	static const struct {
		const char *text, *words;
	} cases[] = {{"", "'' is not a kind"}, {"cn,", "'' is not a kind"}, {"cn,upn", "'upn' is not a kind"}, {"cn,uri,cn", "'cn' appears twice"},
		     {"cn uri", "no comma before 'uri'"}, {"ip", "'ip' is not a kind"}, {"CN", "'CN' is not a kind"}};
	struct srdma_name_order order;

	for (size_t i = 0; i < COUNT(cases); i++) {
		assert_int_equal(srdma_name_order_parse(cases[i].text, &order), -EINVAL);
		if (!strstr(srdma_error_text(), cases[i].words))
			fail_msg("'%s': %s", cases[i].text, srdma_error_text());
	}
	assert_int_equal(order_of(" pin,\tdns ").count, 2);
}

/* ---- several, and odd ones ------------------------------------------------------------------------------------- */

static void add_cn(X509 *cert, int type, const char *bytes, int length)
{
	X509_NAME *subject = X509_NAME_dup(X509_get_subject_name(cert));
	X509_NAME_ENTRY *entry = NULL;

	assert_non_null(X509_NAME_ENTRY_create_by_NID(&entry, NID_commonName, V_ASN1_UTF8STRING, (const unsigned char *)"x", 1));
	ASN1_STRING *value = X509_NAME_ENTRY_get_data(entry);
	/* X509_NAME_add_entry_by_NID would check the bytes. */
	assert_int_equal(ASN1_STRING_set(value, bytes, length), 1);
	value->type = type;
	assert_int_equal(X509_NAME_add_entry(subject, entry, -1, 0), 1);
	assert_int_equal(X509_set_subject_name(cert, subject), 1);
	X509_NAME_ENTRY_free(entry);
	X509_NAME_free(subject);
}

#define CN(function, type, bytes) \
	static void function(X509 *cert) \
	{ \
		add_cn(cert, type, bytes, sizeof(bytes) - 1); \
	}
CN(add_second, V_ASN1_UTF8STRING, "admin")
CN(add_same, V_ASN1_UTF8STRING, "alice")
CN(add_nul, V_ASN1_UTF8STRING, "alice\0.evil")
CN(add_newline, V_ASN1_UTF8STRING, "al\nice")
CN(add_escape, V_ASN1_UTF8STRING, "\x1b[2Jalice")
CN(add_bidi, V_ASN1_UTF8STRING, "alice\xe2\x80\xae" "nimda")
CN(add_zero_width, V_ASN1_UTF8STRING, "ali\xe2\x80\x8b" "ce")
CN(add_empty, V_ASN1_UTF8STRING, "")
CN(add_bmp_nul, V_ASN1_BMPSTRING, "\0a\0\0\0b")
CN(add_umlaut, V_ASN1_UTF8STRING, "J\xc3\xbcrgen")
CN(add_bmp, V_ASN1_BMPSTRING, "\0J\0\xfc\0r\0g\0e\0n")
CN(add_t61, V_ASN1_T61STRING, "J\xfcrgen")
CN(add_universal, V_ASN1_UNIVERSALSTRING, "\0\0\0J\0\0\0\xfc\0\0\0r\0\0\0g\0\0\0e\0\0\0n")
CN(add_printable, V_ASN1_PRINTABLESTRING, "alice")
CN(add_chinese, V_ASN1_UTF8STRING, "\xe4\xb8\xad\xe6\x96\x87")
CN(add_pin, V_ASN1_UTF8STRING, "SHA256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff")
CN(add_uri, V_ASN1_UTF8STRING, "spiffe://prod/db")
CN(add_urn, V_ASN1_UTF8STRING, "URN:uuid:1")

TEST(several_of_a_kind_decide_nothing)
{
	assert_goes_by(WITH(.name = "alice", .change = add_second), NULL, NULL);
	assert_goes_by(WITH(.name = "alice", .names = "URI:spiffe://a/b", .change = add_second), NULL, "spiffe://a/b");
	assert_goes_by(WITH(.names = "URI:spiffe://a/b,URI:spiffe://a/c"), NULL, NULL);
	assert_goes_by(WITH(.names = "DNS:a,DNS:b"), "dns", NULL);
	assert_goes_by(WITH(.names = "DNS:b,DNS:a,email:x@y"), "dns,email", "x@y");
	/* The same twice is one. */
	assert_goes_by(WITH(.name = "alice", .change = add_same), NULL, "alice");
	assert_goes_by(WITH(.names = "DNS:a.example,DNS:A.Example"), NULL, "a.example");
}

TEST(names_of_every_encoding_are_taken_whole)
{
	static const struct {
		void (*change)(X509 *cert);
		const char *name;
	} cases[] = {{add_umlaut, "J\xc3\xbcrgen"}, {add_bmp, "J\xc3\xbcrgen"}, {add_t61, "J\xc3\xbcrgen"}, {add_universal, "J\xc3\xbcrgen"},
		     {add_printable, "alice"}, {add_chinese, "\xe4\xb8\xad\xe6\x96\x87"}};

	for (size_t i = 0; i < COUNT(cases); i++) {
		assert_goes_by(WITH(.change = cases[i].change), NULL, cases[i].name);
		assert_int_equal(srdma_peer_names_check(cases[i].name), 0);
	}
}

TEST(names_that_do_not_show_as_they_are_decide_nothing)
{
	static const struct {
		void (*change)(X509 *cert);
		const char *shown;
	} cases[] = {{add_nul, "alice?.evil"}, {add_newline, "al?ice"}, {add_escape, "?[2Jalice"}, {add_bidi, "alice???nimda"},
		     {add_zero_width, "ali???ce"}, {add_empty, ""}, {add_bmp_nul, "a?b"}};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct srdma_peer_names names = names_of(WITH(.change = cases[i].change, .names = "URI:spiffe://a/b"), NULL);

		assert_string_equal(names.identity, "spiffe://a/b");
		assert_int_equal(names.list[0].kind, SRDMA_NAME_CN);
		assert_false(names.list[0].whole);
		assert_string_equal(names.list[0].text, cases[i].shown);
		srdma_peer_names_clear(&names);
		assert_goes_by(WITH(.change = cases[i].change), NULL, NULL);
		/* One that is good beside it does not help. */
		assert_goes_by(WITH(.name = "alice", .change = cases[i].change), NULL, NULL);
	}
}

TEST(name_of_one_kind_does_not_pass_for_another)
{
	assert_goes_by(WITH(.change = add_pin), NULL, NULL);
	assert_goes_by(WITH(.change = add_pin), "cn", NULL);
	assert_goes_by(WITH(.change = add_uri), NULL, NULL);
	assert_goes_by(WITH(.change = add_urn), NULL, NULL);
	assert_goes_by(WITH(.change = add_uri), "cn,dns", "spiffe://prod/db");
	assert_goes_by(WITH(.names = "URI:alice"), NULL, NULL);
	assert_goes_by(WITH(.names = "URI:urn:uuid:1"), NULL, "urn:uuid:1");
	assert_goes_by(WITH(.names = "DNS:*.example.com"), NULL, NULL);
}

static int uri_digits;

static void add_long_uri(X509 *cert)
{
	char text[300];

	snprintf(text, sizeof text, "URI:spiffe://%0*d", uri_digits, 1);
	pki_extend(cert, ca.cert, NID_subject_alt_name, text);
}

TEST(name_is_never_cut)
{
	struct srdma_peer_names names;

	uri_digits = 240;
	names = names_of(WITH(.change = add_long_uri), NULL);
	assert_int_equal(strlen(names.identity), 249);
	srdma_peer_names_clear(&names);
	uri_digits = 247;
	assert_goes_by(WITH(.change = add_long_uri), NULL, NULL);
}

/* Bytes in a SAN that no IA5String has. */
static void add_odd_sans(X509 *cert)
{
	static const char der[] = "\x30\x1a"
				  "\x86\x07" "a://\xc3\xbc\x62"	  /* URI in UTF-8 */
				  "\x82\x03" "a\0b"		  /* DNS with a NUL */
				  "\x81\x05" "a@b\nc"		  /* e-mail with a line end */
				  "\x87\x03" "\1\2\3";		  /* an address of three bytes */
	X509_EXTENSION *extension = pki_extension("2.5.29.17", false, der, sizeof der - 1);

	X509_add_ext(cert, extension, -1);
	X509_EXTENSION_free(extension);
}

TEST(odd_alternative_names_decide_nothing)
{
	struct srdma_peer_names names = names_of(WITH(.change = add_odd_sans), NULL);

	assert_string_equal(names.identity, names.pin);
	assert_int_equal(names.count, 4);
	for (size_t i = 0; i < names.count; i++)
		assert_false(names.list[i].whole);
	assert_string_equal(names.list[0].text, "a://\xc3\xbc" "b");
	assert_string_equal(names.list[1].text, "a?b");
	assert_string_equal(names.list[2].text, "a@b?c");
	srdma_peer_names_clear(&names);
}

TEST(all_names_are_there_in_their_order)
{
	static const struct srdma_cert_name want[] = {{0, SRDMA_NAME_CN, true, "alice"}, {0, SRDMA_NAME_CN, true, "admin"},
						      {0, SRDMA_NAME_URI, true, "spiffe://prod/db"}, {0, SRDMA_NAME_EMAIL, true, "a@example.com"},
						      {0, SRDMA_NAME_DNS, true, "host.example.com"}, {0, SRDMA_NAME_IP, true, "192.0.2.1"},
						      {0, SRDMA_NAME_IP, true, "fd00::7"}};
	struct srdma_peer_names names = names_of(WITH(.name = "alice", .names = ALL ",IP:fd00::7,RID:1.2.3", .change = add_second), NULL);

	assert_int_equal(names.count, COUNT(want));
	for (size_t i = 0; i < names.count; i++) {
		assert_int_equal(names.list[i].kind, want[i].kind);
		assert_int_equal(names.list[i].whole, true);
		assert_string_equal(names.list[i].text, want[i].text);
	}
	srdma_peer_names_clear(&names);
	assert_int_equal(names.count, 0);
	assert_string_equal(srdma_name_kind_name(SRDMA_NAME_EMAIL), "email");
	assert_null(srdma_name_kind_name(SRDMA_NAME_KINDS));
}

RUN_TESTS(make_ca, free_ca)
