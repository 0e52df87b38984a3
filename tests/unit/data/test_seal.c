/* SPDX-License-Identifier: Apache-2.0 */
/* Sealers and openers; their keys have a test of their own. Linked with --wrap for OpenSSL's calls that start and end a record: they
 * are watched, and made to fail. */
#include "test.h"

#include "seal_parts.h"

#include "log.h"

#define PER_KEY     (1ull << SRDMA_SEAL_UPDATE_SHIFT)
#define USES_MAX    (3u << SRDMA_SEAL_UPDATE_SHIFT)
#define HEADER      "header"
#define HEADER_SIZE 6u

/* The key and nonce of each record that was begun. */
struct use {
	uint8_t key[SRDMA_SEAL_KEY], nonce[SRDMA_SEAL_IV];
};

static struct {
	struct use *uses;
	size_t count;
	uint8_t key[SRDMA_SEAL_KEY];
} watch;
static int contexts; /* alive */
static bool fail_final, fail_key;

int __real_EVP_CipherInit_ex(EVP_CIPHER_CTX *c, const EVP_CIPHER *cipher, ENGINE *e, const unsigned char *key,
			     const unsigned char *iv, int enc);
int __real_EVP_CipherFinal_ex(EVP_CIPHER_CTX *c, unsigned char *out, int *n);
EVP_CIPHER_CTX *__real_EVP_CIPHER_CTX_new(void);
EVP_CIPHER_CTX *__wrap_EVP_CIPHER_CTX_new(void);
void __real_EVP_CIPHER_CTX_free(EVP_CIPHER_CTX *c);

int __wrap_EVP_CipherInit_ex(EVP_CIPHER_CTX *c, const EVP_CIPHER *cipher, ENGINE *e, const unsigned char *key,
			     const unsigned char *iv, int enc)
{
	if (key && fail_key)
		return 0;
	if (watch.uses && key)
		memcpy(watch.key, key, SRDMA_SEAL_KEY);
	if (watch.uses && iv && watch.count < USES_MAX) {
		struct use *use = &watch.uses[watch.count++];

		memcpy(use->key, watch.key, SRDMA_SEAL_KEY);
		memcpy(use->nonce, iv, SRDMA_SEAL_IV);
	}
	return __real_EVP_CipherInit_ex(c, cipher, e, key, iv, enc);
}

int __wrap_EVP_CipherFinal_ex(EVP_CIPHER_CTX *c, unsigned char *out, int *n)
{
	return fail_final ? 0 : __real_EVP_CipherFinal_ex(c, out, n);
}

EVP_CIPHER_CTX *__wrap_EVP_CIPHER_CTX_new(void)
{
	contexts++;
	return __real_EVP_CIPHER_CTX_new();
}

void __wrap_EVP_CIPHER_CTX_free(EVP_CIPHER_CTX *c)
{
	contexts -= c != NULL;
	__real_EVP_CIPHER_CTX_free(c);
}

/* ---- both ends of a stream ------------------------------------------------------------------------------------- */

struct stream {
	struct srdma_sealer *sealer;
	struct srdma_opener *opener;
};

static struct stream stream_of(enum srdma_cipher cipher)
{
	uint8_t secret[SRDMA_SEAL_SECRET];
	struct stream s;

	for (unsigned i = 0; i < sizeof secret; i++)
		secret[i] = (uint8_t)i;
	assert_int_equal(srdma_sealer_new(cipher, secret, &s.sealer), 0);
	assert_int_equal(srdma_opener_new(cipher, secret, &s.opener), 0);
	return s;
}

static void delete(struct stream *s)
{
	srdma_sealer_delete(&s->sealer);
	srdma_opener_delete(&s->opener);
	assert_null(s->sealer);
	assert_null(s->opener);
}

/* The program runs all tests with one cipher, then with the other; each test has a stream of its own. */
static enum srdma_cipher cipher_now = SRDMA_CIPHER_AES_256_GCM;
static struct stream ends;

static int begin(void **state)
{
	ends = stream_of(cipher_now);
	return 0;
}

static int end(void **state)
{
	delete(&ends);
	assert_int_equal(contexts, 0);
	free(watch.uses);
	watch.uses = NULL;
	fail_final = fail_key = false;
	return 0;
}

static void seal(struct stream *s, const void *data, size_t length, void *out)
{
	assert_int_equal(srdma_sealer_seal(s->sealer, HEADER, HEADER_SIZE, data, length, out), 0);
}

static int try_to_open(struct stream *s, uint64_t number, const void *sealed, size_t sealed_length, void *out)
{
	return srdma_opener_open(s->opener, number, HEADER, HEADER_SIZE, sealed, sealed_length, out);
}

/* The sealer goes on with this number, in this generation or the next. */
static void skip_to(struct stream *s, uint64_t number)
{
	assert_true(number >> SRDMA_SEAL_UPDATE_SHIFT <= s->sealer->key.generation + 1);
	s->sealer->next = number;
}

/* A record with one byte of data. */
enum { SHORT = 1 + SRDMA_SEAL_OVERHEAD };
static void seal_short(struct stream *s, uint64_t number, uint8_t record[SHORT])
{
	skip_to(s, number);
	seal(s, "x", 1, record);
}

static int try_short(struct stream *s, uint64_t number, const uint8_t record[SHORT])
{
	uint8_t out = 0;
	int ret = try_to_open(s, number, record, SHORT, &out);

	assert_int_equal(out, ret == 0 ? 'x' : 0);
	return ret;
}

/* ---- recorded vectors -------------------------------------------------------------------------------------------- */

/* Made by Python's hmac and cryptography, not by this code, from the secret 00 01 .. 1f. If these bytes change, the wire
 * format changes. */
TEST(records_have_the_recorded_bytes)
{
	static const struct {
		enum srdma_cipher cipher;
		uint64_t number;
		const char *record;
	} golden[] = {
		{SRDMA_CIPHER_AES_256_GCM, 0, "753ccebe169074af06e426e4ffc1b76840fa292e13cac91e"},
		{SRDMA_CIPHER_AES_256_GCM, 5, "d34fdaaa30877e4f7c0674958de5bc52409db69603ebc40f"},
		{SRDMA_CIPHER_AES_256_GCM, PER_KEY, "2d0c59bddbed88f5e99a1be16cedeba43df658b057f034bb"},
		{SRDMA_CIPHER_AES_256_GCM, 2 * PER_KEY + 1, "3fa25b72a983bb46692640c2a576b41b3c708d9ab45e5670"},
		{SRDMA_CIPHER_CHACHA20_POLY1305, 0, "ec9cdd15bf7aa2ad050ab7c858396469d02da0b2822af0e5"},
		{SRDMA_CIPHER_CHACHA20_POLY1305, 5, "6859a2e48384aa01e7e1643778c5419cd27569113c35de95"},
		{SRDMA_CIPHER_CHACHA20_POLY1305, PER_KEY, "5ac22232a5abd88ca44814507b3d2caa138b5bc972b6ee1b"},
		{SRDMA_CIPHER_CHACHA20_POLY1305, 2 * PER_KEY + 1, "0d4d3702b82faa6a5c0d47bfdad64412098edc49c94cfe7d"},
	};

	for (size_t i = 0; i < COUNT(golden); i++) {
		struct stream s = stream_of(golden[i].cipher);
		uint8_t expected[8 + SRDMA_SEAL_OVERHEAD], record[sizeof expected], step[SHORT];

		for (uint64_t key = PER_KEY; key <= golden[i].number; key += PER_KEY) /* it turns one key at a time */
			seal_short(&s, key, step);
		skip_to(&s, golden[i].number);
		seal(&s, "securdma", 8, record);
		assert_int_equal(OPENSSL_hexstr2buf_ex(expected, sizeof expected, NULL, golden[i].record, '\0'), 1);
		assert_memory_equal(record, expected, sizeof expected);
		delete(&s);
	}
}

/* ---- opening a record ------------------------------------------------------------------------------------------ */

TEST(records_of_every_length_are_opened_in_place_too)
{
	static const size_t lengths[] = {0, 1, 15, 16, 17, 64, 4096, 65536, 1u << 20, SRDMA_SEAL_MAX};
	static uint8_t data[SRDMA_SEAL_MAX], record[SRDMA_SEAL_MAX + SRDMA_SEAL_OVERHEAD];

	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i * 7 + i / 256);

	for (size_t i = 0; i < COUNT(lengths); i++) {
		size_t length = lengths[i];

		assert_true(srdma_sealer_next(ends.sealer) == i);
		memcpy(record, data, length);
		seal(&ends, record, length, record);
		assert_true(length < 16 || memcmp(record, data, length) != 0);
		assert_int_equal(try_to_open(&ends, i, record, length + SRDMA_SEAL_OVERHEAD, record), 0);
		assert_memory_equal(record, data, length);
	}
}

/* Fails, and leaves nothing of the data behind. */
static void assert_refused(struct stream *s, uint64_t number, const uint8_t *header, size_t header_length, const uint8_t *sealed,
			   size_t length)
{
	static const uint8_t wiped[256];
	uint8_t out[256];

	memset(out, 0xa5, sizeof out);
	assert_int_equal(srdma_opener_open(s->opener, number, header, header_length, sealed, length, out), SRDMA_ESEAL);
	if (length > SRDMA_SEAL_OVERHEAD)
		assert_memory_equal(out, wiped, length - SRDMA_SEAL_OVERHEAD);
	assert_int_equal(out[length > SRDMA_SEAL_OVERHEAD ? length - SRDMA_SEAL_OVERHEAD : 0], 0xa5);
}

TEST(any_change_of_a_record_is_seen_and_its_output_wiped)
{
	uint8_t record[100 + SRDMA_SEAL_OVERHEAD], header[HEADER_SIZE + 1] = HEADER, data[100];

	memset(data, 0x5a, sizeof data);

	seal(&ends, data, sizeof data, record);
	for (unsigned bit = 0; bit < 8 * sizeof record; bit++) {
		record[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_refused(&ends, 0, header, HEADER_SIZE, record, sizeof record);
		record[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (unsigned bit = 0; bit < 8 * HEADER_SIZE; bit++) {
		header[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_refused(&ends, 0, header, HEADER_SIZE, record, sizeof record);
		header[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (size_t length = 0; length < sizeof record; length++) {
		/* In a block of its own length, so that a sanitizer sees a read past the end. */
		uint8_t *cut = malloc(length ? length : 1);

		assert_non_null(cut);
		memcpy(cut, record, length);
		assert_refused(&ends, 0, header, HEADER_SIZE, cut, length);
		free(cut);
	}
	for (size_t length = 0; length < HEADER_SIZE; length++)
		assert_refused(&ends, 0, header, length, record, sizeof record);
	assert_refused(&ends, 0, header, HEADER_SIZE + 1, record, sizeof record);
	assert_int_equal(try_to_open(&ends, 0, record, sizeof record, data), 0);
}

TEST(record_under_another_number_is_refused)
{
	static const uint64_t others[] = {1, 2, PER_KEY - 1, PER_KEY, 2 * PER_KEY, 1ull << 32, 1ull << 48, 1ull << 63, UINT64_MAX};
	uint8_t record[SHORT];

	seal_short(&ends, 0, record);
	for (size_t i = 0; i < COUNT(others); i++)
		assert_refused(&ends, others[i], (const uint8_t *)HEADER, HEADER_SIZE, record, sizeof record);
	assert_int_equal(try_short(&ends, 0, record), 0);
}

TEST(another_secret_or_cipher_opens_nothing)
{
	struct stream other = stream_of(cipher_now == SRDMA_CIPHER_AES_256_GCM ? SRDMA_CIPHER_CHACHA20_POLY1305 : SRDMA_CIPHER_AES_256_GCM);
	uint8_t secret[SRDMA_SEAL_SECRET] = {0}, record[SHORT];

	seal_short(&ends, 0, record);
	assert_int_equal(try_short(&other, 0, record), SRDMA_ESEAL);
	srdma_opener_delete(&ends.opener);
	assert_int_equal(srdma_opener_new(cipher_now, secret, &ends.opener), 0);
	assert_int_equal(try_short(&ends, 0, record), SRDMA_ESEAL);
	delete(&other);
}

TEST(record_over_the_limit_is_neither_sealed_nor_opened)
{
	static uint8_t record[SRDMA_SEAL_MAX + 1 + SRDMA_SEAL_OVERHEAD], out[SRDMA_SEAL_MAX + 1];

	assert_int_equal(srdma_sealer_seal(ends.sealer, NULL, 0, record, SRDMA_SEAL_MAX + 1, record), -EINVAL);
	assert_int_equal(srdma_sealer_seal(ends.sealer, record, SRDMA_SEAL_MAX + 1, record, 1, record), -EINVAL);
	assert_true(srdma_sealer_next(ends.sealer) == 0);
	out[0] = 1;
	assert_int_equal(try_to_open(&ends, 0, record, sizeof record, out), SRDMA_ESEAL);
	assert_int_equal(out[0], 0);
}

/* ---- keys ------------------------------------------------------------------------------------------------------ */

TEST(records_around_a_key_change_open_in_any_order)
{
	uint8_t records[20][SHORT];

	for (unsigned i = 0; i < 20; i++)
		seal_short(&ends, PER_KEY - 10 + i, records[i]);
	for (unsigned i = 0, at = 13; i < 20; i++, at = (at + 7) % 20)
		assert_int_equal(try_short(&ends, PER_KEY - 10 + at, records[at]), 0);
}

TEST(key_two_generations_old_is_gone)
{
	uint8_t old[SHORT], middle[SHORT], new[SHORT];

	seal_short(&ends, PER_KEY - 1, old);
	seal_short(&ends, 2 * PER_KEY - 1, middle);
	seal_short(&ends, 2 * PER_KEY, new);
	assert_int_equal(try_short(&ends, 2 * PER_KEY, new), SRDMA_ESEAL); /* one key after the other */
	assert_int_equal(try_short(&ends, 2 * PER_KEY - 1, middle), 0);
	assert_int_equal(try_short(&ends, PER_KEY - 1, old), 0);
	assert_int_equal(try_short(&ends, 2 * PER_KEY, new), 0);
	assert_int_equal(try_short(&ends, PER_KEY - 1, old), SRDMA_ESEAL);
	assert_int_equal(try_short(&ends, 2 * PER_KEY - 1, middle), 0);
	assert_int_equal(contexts, 3); /* the sealer's, the opener's present one and the one before */
}

TEST(forged_record_of_the_next_key_ends_no_key)
{
	uint8_t first[SHORT], last[SHORT], next[SHORT], forged[SHORT] = {0};

	seal_short(&ends, 0, first);
	seal_short(&ends, PER_KEY, last);
	seal_short(&ends, 2 * PER_KEY, next);
	assert_int_equal(try_short(&ends, PER_KEY, last), 0);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(try_short(&ends, 2 * PER_KEY + i, forged), SRDMA_ESEAL);
	assert_true(ends.opener->present.generation == 1);
	assert_int_equal(contexts, 4); /* made once for all of them */
	assert_int_equal(try_short(&ends, 0, first), 0);
	assert_int_equal(try_short(&ends, 2 * PER_KEY, next), 0);
}

/* Past two key changes with every record between, as a connection has them. */
TEST(long_stream_changes_its_keys_in_step)
{
	uint8_t record[SHORT];

	for (uint64_t number = 0; number < 2 * PER_KEY + 10; number++) {
		seal(&ends, "x", 1, record);
		if (try_short(&ends, number, record) != 0)
			fail_msg("record %llu: %s", (unsigned long long)number, srdma_error_text());
	}
	assert_true(ends.opener->present.generation == 2);
}

/* ---- nonces ---------------------------------------------------------------------------------------------------- */

static int compare_uses(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct use));
}

static void assert_no_use_is_repeated(void)
{
	qsort(watch.uses, watch.count, sizeof *watch.uses, compare_uses);
	for (size_t i = 1; i < watch.count; i++)
		if (compare_uses(&watch.uses[i - 1], &watch.uses[i]) == 0)
			fail_msg("a nonce was used twice with one key, of %zu uses", watch.count);
}

static void watch_uses(void)
{
	watch.uses = calloc(USES_MAX, sizeof *watch.uses);
	watch.count = 0;
	assert_non_null(watch.uses);
}

/* What a thread prepares for: the right record, one with another header, one that comes later, or none. */
enum { RIGHT, OTHER_HEADER, OTHER_NUMBER, TOO_LONG, TWICE, PREPARATIONS };

static void prepare(struct stream *s, unsigned how, uint64_t number)
{
	static const char too_long[SRDMA_SEAL_PREPARED + 1];

	for (int i = how == TWICE ? 2 : 1; i > 0; i--) {
		srdma_sealer_prepare(s->sealer, how == OTHER_HEADER ? "HEADER" : how == TOO_LONG ? too_long : HEADER,
				     how == TOO_LONG ? sizeof too_long : HEADER_SIZE);
		srdma_opener_prepare(s->opener, number + (how == OTHER_NUMBER), how == OTHER_HEADER ? "HEADER" : how == TOO_LONG ? too_long : HEADER,
				     how == TOO_LONG ? sizeof too_long : HEADER_SIZE);
	}
}

TEST(prepared_record_has_the_same_bytes)
{
	struct stream plain = stream_of(cipher_now);

	/* Up to the next key, and beyond. */
	skip_to(&ends, PER_KEY - 3 * PREPARATIONS);
	skip_to(&plain, PER_KEY - 3 * PREPARATIONS);
	for (unsigned i = 0; i < 6 * PREPARATIONS; i++) {
		uint64_t number = srdma_sealer_next(ends.sealer);
		uint8_t record[SHORT], expected[SHORT];

		prepare(&ends, i % PREPARATIONS, number);
		seal(&ends, "x", 1, record);
		seal(&plain, "x", 1, expected);
		assert_memory_equal(record, expected, SHORT);
		/* A forged record takes what was prepared with it; the genuine one still opens, once it is prepared for again or not. */
		record[0] ^= 1;
		assert_int_equal(try_short(&ends, number, record), SRDMA_ESEAL);
		assert_int_equal(try_short(&ends, number, expected), 0);
	}
	delete(&plain);
}

TEST(what_was_prepared_is_not_done_again)
{
	uint8_t record[SHORT];
	size_t before;

	watch_uses();
	for (uint64_t number = 0; number < 4; number++) {
		bool right = number % 2 == 0;

		prepare(&ends, right ? TWICE : OTHER_HEADER, number);
		before = watch.count;
		seal(&ends, "x", 1, record);
		assert_int_equal(try_short(&ends, number, record), 0);
		assert_int_equal(watch.count - before, right ? 0 : 2);
	}
}

/* Some seals fail, in each way in which they can; each number is used once at most, and they only grow. */
static void seal_many(struct srdma_sealer *sealer, unsigned count, unsigned *seed)
{
	static const uint8_t wiped[64 + SRDMA_SEAL_OVERHEAD];

	for (unsigned i = 0; i < count; i++) {
		uint8_t data[64] = {0}, record[64 + SRDMA_SEAL_OVERHEAD];
		size_t length = (size_t)rand_r(seed) % sizeof data;
		uint64_t before = srdma_sealer_next(sealer);
		size_t uses = watch.count;
		int ret;

		memset(record, 0xa5, sizeof record);
		fail_final = rand_r(seed) % 8 == 0;
		fail_key = rand_r(seed) % 8 == 0;
		ret = srdma_sealer_seal(sealer, HEADER, HEADER_SIZE, data, length, record);
		assert_true(srdma_sealer_next(sealer) == before + (watch.count - uses));
		assert_true(ret == SRDMA_ESEAL || (ret == 0 && srdma_sealer_next(sealer) == before + 1));
		if (ret != 0)
			assert_memory_equal(record, wiped, length + SRDMA_SEAL_OVERHEAD);
	}
	fail_final = fail_key = false;
}

TEST(no_nonce_is_used_twice_with_a_key)
{
	unsigned seed = 1;

	watch_uses();
	for (unsigned round = 0; round < 100; round++) {
		uint8_t secret[SRDMA_SEAL_SECRET] = {(uint8_t)round, (uint8_t)cipher_now};
		struct srdma_sealer *sealer;

		assert_int_equal(srdma_sealer_new(cipher_now, secret, &sealer), 0);
		for (uint64_t border = PER_KEY; border <= 3 * PER_KEY; border += PER_KEY) {
			seal_many(sealer, (unsigned)rand_r(&seed) % 100, &seed);
			/* Over the border with the seals that come to it, failing or not. */
			sealer->next = border - (unsigned)rand_r(&seed) % 50;
			seal_many(sealer, 200, &seed);
		}
		srdma_sealer_delete(&sealer);
	}
	assert_true(watch.count > 50000);
	assert_no_use_is_repeated();
}

TEST(all_nonces_of_two_whole_keys_differ)
{
	uint8_t record[SRDMA_SEAL_OVERHEAD];

	delete(&ends);
	watch_uses();
	ends = stream_of(cipher_now);
	for (uint64_t i = 0; i < 2 * PER_KEY + 100; i++)
		assert_int_equal(srdma_sealer_seal(ends.sealer, NULL, 0, NULL, 0, record), 0);
	assert_true(watch.count == 2 * PER_KEY + 100);
	assert_no_use_is_repeated();
}

TEST(used_up_numbers_are_the_end)
{
	uint8_t record[SHORT];

	ends.sealer->next = SRDMA_SEAL_NUMBERS - 1;
	ends.sealer->key.generation = (SRDMA_SEAL_NUMBERS - 1) >> SRDMA_SEAL_UPDATE_SHIFT;
	seal(&ends, "x", 1, record);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(srdma_sealer_seal(ends.sealer, NULL, 0, "x", 1, record), SRDMA_ESEAL);
		assert_true(srdma_sealer_next(ends.sealer) == SRDMA_SEAL_NUMBERS);
	}
	assert_non_null(strstr(srdma_error_text(), "used up"));
	assert_int_equal(try_short(&ends, SRDMA_SEAL_NUMBERS, record), SRDMA_ESEAL);
}

/* ---- the rest -------------------------------------------------------------------------------------------------- */

TEST(key_that_cannot_be_made_leaves_nothing)
{
	uint8_t secret[SRDMA_SEAL_SECRET] = {0}, record[SHORT];
	struct srdma_sealer *sealer = NULL;
	struct srdma_opener *opener = NULL;
	int before = contexts;

	fail_key = true;
	assert_int_equal(srdma_sealer_new(cipher_now, secret, &sealer), SRDMA_ESEAL);
	assert_int_equal(srdma_opener_new(cipher_now, secret, &opener), SRDMA_ESEAL);
	assert_null(sealer);
	assert_null(opener);
	assert_int_equal(contexts, before);
	fail_key = false;
	seal_short(&ends, PER_KEY, record);
	fail_key = true;
	assert_int_equal(try_short(&ends, PER_KEY, record), SRDMA_ESEAL);
	fail_key = false;
	assert_int_equal(try_short(&ends, PER_KEY, record), 0);
}

TEST(destructors_take_null)
{
	struct srdma_sealer *sealer = NULL;
	struct srdma_opener *opener = NULL;

	srdma_sealer_delete(&sealer);
	srdma_opener_delete(&opener);
}

TEST(ciphers_and_the_error_have_names)
{
	assert_string_equal(srdma_cipher_name(SRDMA_CIPHER_AES_256_GCM), "AES-256-GCM");
	assert_string_equal(srdma_cipher_name(SRDMA_CIPHER_CHACHA20_POLY1305), "ChaCha20-Poly1305");
	assert_string_equal(srdma_strerror(SRDMA_ESEAL), "a sealed record did not authenticate");
}

#if defined(__x86_64__)
TEST(fast_aes_is_what_the_kernel_says)
{
	char line[8192];
	bool fast = false;
	FILE *file = fopen("/proc/cpuinfo", "r");

	if (!file)
		skip();
	while (!fast && fgets(line, sizeof line, file))
		fast = strncmp(line, "flags", 5) == 0 && strstr(line, " aes ") && strstr(line, " pclmulqdq ");
	fclose(file);
	assert_int_equal(srdma_cipher_aes_is_fast(), fast);
}
#endif

int main(void)
{
	int failures;

	for (size_t i = 0; i < test_count; i++)
		tests[i].setup_func = begin, tests[i].teardown_func = end;
	failures = cmocka_run_group_tests_name("AES-256-GCM", tests, NULL, NULL);
	cipher_now = SRDMA_CIPHER_CHACHA20_POLY1305;
	return failures + cmocka_run_group_tests_name("ChaCha20-Poly1305", tests, NULL, NULL);
}
