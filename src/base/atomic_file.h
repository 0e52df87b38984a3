/* SPDX-License-Identifier: Apache-2.0 */
/* Output files that appear whole or not at all, and that are never replaced by accident. */
#ifndef SRDMA_ATOMIC_FILE_H
#define SRDMA_ATOMIC_FILE_H

#include <openssl/bio.h>
#include <stdbool.h>
#include <sys/stat.h>

/* The file is written under a temporary name beside its own, then linked or renamed to that. Set path and mode, and the rest to 0. */
struct srdma_atomic_file {
	const char *path;
	mode_t mode;
	mode_t group_mode; /* rights that the group of a replaced file may keep, and with them the file its group; 0: none */
	char *temporary; /* NULL: none */
	char *backup;    /* another link to the file that was replaced; NULL: none */
	bool published;
};

/* Writes the content of the memory BIO to the temporary file and syncs it. */
int srdma_atomic_file_prepare(struct srdma_atomic_file *output, BIO *content);

/* Gives the file its name. Errors: -EEXIST: the name exists and overwrite is false. */
int srdma_atomic_file_publish(struct srdma_atomic_file *output, bool overwrite);

/* Restores the file as it was before srdma_atomic_file_publish, if that was called. */
void srdma_atomic_file_revert(struct srdma_atomic_file *output);

/* Removes temporary files and frees. The caller must always call it last. */
void srdma_atomic_file_finish(struct srdma_atomic_file *output);

/* Whether two paths, of files that need not exist, name the same directory entry: "a" and "./a" do. */
bool srdma_same_entry(const char *a, const char *b);

/* Whether two paths lead to one existing file. */
bool srdma_same_file(const char *a, const char *b);

#endif
