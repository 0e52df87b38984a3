/* SPDX-License-Identifier: Apache-2.0 */
#include "revocation.h"

#include "cert.h"
#include "log.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CLIMB_MAX 16 /* CAs above a trusted one */

struct list {
	X509_CRL *crl;
	AUTHORITY_KEYID *key_id; /* NULL: it names none */
	/* The result for the last key that the signature was checked with. One key signs a list, so mostly there is no other. */
	bool tried, good;
	unsigned char key[SRDMA_PIN_SIZE];
};

struct srdma_revocation {
	pthread_mutex_t mutex; /* guards tried, good and key of all lists */
	struct list *lists;
	size_t count, room;
};

static bool is_whole(const ISSUING_DIST_POINT *point)
{
	return !point->distpoint && point->onlyuser <= 0 && point->onlyCA <= 0 && point->onlyattr <= 0 && point->indirectCRL <= 0 &&
	       !point->onlysomereasons;
}

/* Why the list may leave out entries of another list; NULL: this extension gives no reason. */
static const char *extension_problem(X509_EXTENSION *extension)
{
	ISSUING_DIST_POINT *point;
	bool whole;

	switch (OBJ_obj2nid(X509_EXTENSION_get_object(extension))) {
	case NID_delta_crl: return "marks it as a delta of another list";
	case NID_authority_key_identifier:
	case NID_crl_number: return NULL;
	case NID_issuing_distribution_point:
		point = X509V3_EXT_d2i(extension);
		whole = point && is_whole(point);
		ISSUING_DIST_POINT_free(point);
		return whole ? NULL : "limits it to a part of the certificates, or includes other CAs";
	default: return X509_EXTENSION_get_critical(extension) ? "is critical and unknown to securdma" : NULL;
	}
}

static const char *entry_problem(X509_EXTENSION *extension)
{
	switch (OBJ_obj2nid(X509_EXTENSION_get_object(extension))) {
	case NID_certificate_issuer: return "assigns an entry to another CA";
	case NID_crl_reason:
	case NID_invalidity_date: return NULL;
	default: return X509_EXTENSION_get_critical(extension) ? "of an entry is critical and unknown to securdma" : NULL;
	}
}

static const char *problem_in(const STACK_OF(X509_EXTENSION) * extensions, const char *(*judge)(X509_EXTENSION *), X509_EXTENSION **culprit)
{
	for (int i = 0; i < sk_X509_EXTENSION_num(extensions); i++) {
		const char *problem = judge(sk_X509_EXTENSION_value(extensions, i));

		*culprit = sk_X509_EXTENSION_value(extensions, i);
		if (problem)
			return problem;
	}
	return NULL;
}

static int check_list(const char *file, X509_CRL *crl)
{
	X509_EXTENSION *culprit = NULL;
	const char *problem = problem_in(X509_CRL_get0_extensions(crl), extension_problem, &culprit);
	STACK_OF(X509_REVOKED) *entries = X509_CRL_get_REVOKED(crl);
	char issuer[256], extension[128], number[64];

	for (int i = 0; !problem && i < sk_X509_REVOKED_num(entries); i++)
		problem = problem_in(X509_REVOKED_get0_extensions(sk_X509_REVOKED_value(entries, i)), entry_problem, &culprit);
	srdma_cert_format_name(X509_CRL_get_issuer(crl), issuer, sizeof issuer);
	if (problem) {
		OBJ_obj2txt(extension, sizeof extension, X509_EXTENSION_get_object(culprit), 0);
		OBJ_obj2txt(number, sizeof number, X509_EXTENSION_get_object(culprit), 1);
		return srdma_fail(SRDMA_ECONFIG,
				  "%s: the revocation list of '%s' is not complete: its extension %s%s%s%s %s; give the CA's complete list",
				  file, issuer, extension, strcmp(extension, number) ? " (" : "", strcmp(extension, number) ? number : "",
				  strcmp(extension, number) ? ")" : "", problem);
	}
	if (!X509_CRL_get0_nextUpdate(crl))
		return srdma_fail(SRDMA_ECONFIG,
				  "%s: the revocation list of '%s' has no date of the next update, so it would never expire", file,
				  issuer);
	return 0;
}

static int add_list(struct srdma_revocation *lists, X509_CRL *crl)
{
	size_t room = lists->room ? 2 * lists->room : 4;
	struct list *grown;

	if (lists->count == lists->room) {
		grown = realloc(lists->lists, room * sizeof *grown);
		if (!grown)
			return srdma_fail(-ENOMEM, "out of memory");
		lists->lists = grown;
		lists->room = room;
	}
	lists->lists[lists->count++] = (struct list){
		.crl = crl,
		.key_id = X509_CRL_get_ext_d2i(crl, NID_authority_key_identifier, NULL, NULL),
	};
	return 0;
}

static int lists_new(struct srdma_revocation **out)
{
	if (*out)
		return 0;
	*out = calloc(1, sizeof **out);
	if (!*out)
		return srdma_fail(-ENOMEM, "out of memory");
	pthread_mutex_init(&(*out)->mutex, NULL);
	return 0;
}

int srdma_revocation_load(const char *file, bool may_have_none, struct srdma_revocation **lists)
{
	BIO *bio = BIO_new_file(file, "r");
	size_t before = *lists ? (*lists)->count : 0;
	X509_CRL *crl;
	int ret = 0;

	while (ret == 0 && bio && (crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL)) != NULL) {
		ret = check_list(file, crl);
		if (ret == 0)
			ret = lists_new(lists);
		if (ret == 0)
			ret = add_list(*lists, crl);
		if (ret != 0)
			X509_CRL_free(crl);
	}
	/* OpenSSL reports the end of the file as an error; only other errors count. */
	unsigned long error = ERR_peek_last_error();
	bool whole = bio && ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
	BIO_free(bio);
	if (ret == 0 && (!whole || (!may_have_none && (!*lists || (*lists)->count == before))))
		ret = srdma_fail_openssl(SRDMA_ECONFIG, "%s is not a PEM file with certificate revocation lists", file);
	ERR_clear_error();
	return ret;
}

void srdma_revocation_free(struct srdma_revocation **out)
{
	struct srdma_revocation *lists = *out;

	*out = NULL;
	if (!lists)
		return;
	for (size_t i = 0; i < lists->count; i++) {
		X509_CRL_free(lists->lists[i].crl);
		AUTHORITY_KEYID_free(lists->lists[i].key_id);
	}
	pthread_mutex_destroy(&lists->mutex);
	free(lists->lists);
	free(lists);
}

static bool verify(struct list *list, X509 *issuer)
{
	unsigned char key[SRDMA_PIN_SIZE];

	if (srdma_cert_pin(issuer, key) != 0)
		return false;
	if (!list->tried || memcmp(list->key, key, sizeof key) != 0) {
		list->good = X509_CRL_verify(list->crl, X509_get0_pubkey(issuer)) == 1;
		list->tried = true;
		memcpy(list->key, key, sizeof key);
		ERR_clear_error();
	}
	return list->good;
}

/* Whether this issuer made this list: the list has its name, and its key's signature. */
static bool is_of(struct srdma_revocation *lists, struct list *list, X509 *issuer)
{
	bool good;

	if (X509_NAME_cmp(X509_CRL_get_issuer(list->crl), X509_get_subject_name(issuer)) != 0 ||
	    (list->key_id && X509_check_akid(issuer, list->key_id) != X509_V_OK))
		return false;
	pthread_mutex_lock(&lists->mutex);
	good = verify(list, issuer);
	pthread_mutex_unlock(&lists->mutex);
	return good;
}

/* Whether the issuer of `cert`, whose own certificate this end does not have, made the list: by the names of the issuer and its key.
 * The operator who gave us the list vouches for it. */
static bool is_of_issuer_of(const struct list *list, X509 *cert)
{
	const ASN1_OCTET_STRING *key_id = X509_get0_authority_key_id(cert);

	return X509_NAME_cmp(X509_CRL_get_issuer(list->crl), X509_get_issuer_name(cert)) == 0 &&
	       (!key_id || !list->key_id || !list->key_id->keyid || ASN1_OCTET_STRING_cmp(key_id, list->key_id->keyid) == 0);
}

int srdma_revocation_match(const struct srdma_revocation *lists, const STACK_OF(X509) *cas)
{
	char issuer[256];

	for (size_t i = 0; lists && i < lists->count; i++) {
		struct list *list = &lists->lists[i];
		bool named = false, matched = false;

		for (int j = 0; !matched && j < sk_X509_num(cas); j++) {
			X509 *ca = sk_X509_value(cas, j);

			if (X509_NAME_cmp(X509_CRL_get_issuer(list->crl), X509_get_subject_name(ca)) != 0)
				continue;
			named = true;
			matched = verify(list, ca);
		}
		if (!named || matched)
			continue;
		srdma_cert_format_name(X509_CRL_get_issuer(list->crl), issuer, sizeof issuer);
		return srdma_fail(SRDMA_ECONFIG, "the revocation list of '%s' is not signed by the CA of that name; give the list that belongs to it",
				  issuer);
	}
	return 0;
}

/* RFC 5280, 6.3.3: in force from thisUpdate to nextUpdate. */
static int check_time(const X509_CRL *crl)
{
	if (X509_cmp_current_time(X509_CRL_get0_lastUpdate(crl)) >= 0)
		return X509_V_ERR_CRL_NOT_YET_VALID;
	return X509_cmp_current_time(X509_CRL_get0_nextUpdate(crl)) > 0 ? X509_V_OK : X509_V_ERR_CRL_HAS_EXPIRED;
}

/* Prefers a list in force to one that is not, and then the newer one. */
static bool is_better(const X509_CRL *crl, const X509_CRL *than)
{
	bool in_force = check_time(crl) == X509_V_OK;

	if (!than)
		return true;
	if (in_force != (check_time(than) == X509_V_OK))
		return in_force;
	return ASN1_TIME_compare(X509_CRL_get0_lastUpdate(crl), X509_CRL_get0_lastUpdate(than)) > 0;
}

/* issuer NULL: this end does not have its certificate. */
static int check_one(struct srdma_revocation *lists, X509 *cert, X509 *issuer, bool *covered)
{
	X509_CRL *crl = NULL;
	X509_REVOKED *entry;
	int result;

	for (size_t i = 0; i < lists->count; i++) {
		struct list *list = &lists->lists[i];

		if ((issuer ? is_of(lists, list, issuer) : is_of_issuer_of(list, cert)) && is_better(list->crl, crl))
			crl = list->crl;
	}
	*covered = crl != NULL;
	if (!crl)
		return X509_V_OK;
	/* UINT32_MAX means that the certificate does not limit its use. */
	if (issuer && !(X509_get_key_usage(issuer) & X509v3_KU_CRL_SIGN))
		return X509_V_ERR_KEYUSAGE_NO_CRL_SIGN;
	result = check_time(crl);
	if (result == X509_V_OK && X509_CRL_get0_by_cert(crl, &entry, cert) != 0)
		result = X509_V_ERR_CERT_REVOKED;
	return result;
}

/* Finds the issuer by the signature: several CAs may have its name, and a certificate need not name the key that signed it. */
static X509 *find_issuer(const STACK_OF(X509) *cas, X509 *cert)
{
	X509 *issuer = NULL;

	for (int i = 0; !issuer && i < sk_X509_num(cas); i++) {
		X509 *ca = sk_X509_value(cas, i);

		if (X509_check_issued(ca, cert) == X509_V_OK && X509_verify(cert, X509_get0_pubkey(ca)) == 1)
			issuer = ca;
	}
	ERR_clear_error();
	return issuer;
}

int srdma_revocation_check(struct srdma_revocation *lists, const STACK_OF(X509) *chain, const STACK_OF(X509) *cas, bool require_all,
			   X509 **culprit)
{
	int count = sk_X509_num(chain), result = X509_V_OK;
	X509 *cert = sk_X509_value(chain, 0), *issuer;

	/* A chain ends at the first trusted certificate. The lists of that certificate's own issuers count, too. */
	for (int depth = 0; result == X509_V_OK && depth < count + CLIMB_MAX; depth++, cert = issuer) {
		bool covered;

		issuer = depth + 1 < count ? sk_X509_value(chain, depth + 1) : X509_self_signed(cert, 0) == 1 ? cert : find_issuer(cas, cert);
		*culprit = cert;
		result = check_one(lists, cert, issuer, &covered);
		if (result == X509_V_OK && (!covered || !issuer) && (depth == 0 || (require_all && depth < count - 1)))
			result = X509_V_ERR_UNABLE_TO_GET_CRL;
		if (!issuer || issuer == cert)
			break;
	}
	return result;
}
