/* SPDX-License-Identifier: Apache-2.0 */
/* The [identity NAME] sections of the configuration file. */
#ifndef CLI_IDENTITIES_H
#define CLI_IDENTITIES_H

#include "option.h"
#include "securdma_server.h"

struct identity {
	char *name;
	int line; /* of the section in the file */
	bool deny;
	char *tunnel_allow; /* NULL: as for all clients */
	int64_t max_clients, region_size, region_access, message_size, max_bytes_per_second; /* as in struct srdma_identity */
	char *files_directory;             /* NULL: that of all clients */
	int64_t files_rights, files_quota; /* -1: likewise */
};

struct identities {
	struct identity *items;
	size_t count, room;
	struct srdma_identity *forms; /* of identities_forms */
};

/* The keys of a section; their offsets are in struct identity. */
extern const struct option identity_options[];
extern const size_t identity_option_count;

/* Room for a line of the file, and so for a name in it. */
#define IDENTITIES_LINE_SIZE 4096

enum identities_section { NO_IDENTITY, IDENTITY_NAMED, IDENTITY_MALFORMED };
/* Takes "[WORD NAME]" or '[WORD "NAME"]' apart, in which \" and \\ stand for a quote and a backslash; *name may be empty. `word`:
 * "identity", or "peer". */
enum identities_section identities_parse_section(const char *word, const char *line, char name[IDENTITIES_LINE_SIZE]);

/* Adds an identity with nothing set; the pointer is valid until the next one is added. NULL: *problem (of `size` bytes) has the error. */
struct identity *identities_add(struct identities *identities, const char *name, int line, char *problem, size_t size);
/* All identities in the library's form; `identities` still owns the array and its strings. NULL: there are none, or no memory. */
const struct srdma_identity *identities_forms(struct identities *identities);
void identities_free(struct identities *identities);

#endif
