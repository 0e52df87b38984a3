/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the command is linked to the run-time library of a sanitizer, which insists on being first in LD_PRELOAD. */
#include "cli.h"

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of programs that the library can be loaded into. */
#if UINTPTR_MAX > UINT32_MAX
#define ElfW(type) Elf64_##type
#define ELF_CLASS  ELFCLASS64
#else
#define ElfW(type) Elf32_##type
#define ELF_CLASS  ELFCLASS32
#endif

/* More than any program has; a file that says otherwise is none. */
#define HEADERS_MAX 128
#define DYNAMIC_MAX 4096

struct program {
	int fd;
	ElfW(Phdr) headers[HEADERS_MAX];
	size_t header_count;
};

bool is_sanitizer(const char *word, size_t length)
{
	static const char *const names[] = {"libasan.", "libtsan.", "libubsan.", "liblsan.", "libhwasan.", "libclang_rt."};
	const char *slash = memrchr(word, '/', length);
	const char *base = slash ? slash + 1 : word;
	size_t left = length - (size_t)(base - word);

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (left > strlen(names[i]) && memcmp(base, names[i], strlen(names[i])) == 0)
			return true;
	return false;
}

static int open_program(const char *path)
{
	struct stat st;
	/* Not a pipe, which would wait for a writer. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 0111))
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

/* As execvp(3) finds it. */
static int open_command(const char *command)
{
	const char *list = getenv("PATH");
	int fd = -1;

	if (strchr(command, '/') || !list)
		return open_program(command);
	for (const char *p = list; fd < 0; p++) {
		size_t length = strcspn(p, ":");
		char path[PATH_MAX];
		int n = snprintf(path, sizeof path, "%.*s%s%s", (int)length, p, length > 0 ? "/" : "", command);

		if (n > 0 && n < (int)sizeof path)
			fd = open_program(path);
		p += length;
		if (!*p)
			break;
	}
	return fd;
}

static bool read_at(int fd, void *data, size_t size, ElfW(Off) offset)
{
	return offset <= LONG_MAX && pread(fd, data, size, (off_t)offset) == (ssize_t)size;
}

static bool read_headers(struct program *program)
{
	ElfW(Ehdr) header;

	if (!read_at(program->fd, &header, sizeof header, 0) || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
	    header.e_ident[EI_CLASS] != ELF_CLASS || header.e_phentsize != sizeof(ElfW(Phdr)) ||
	    header.e_phnum > HEADERS_MAX)
		return false;
	program->header_count = header.e_phnum;
	return read_at(program->fd, program->headers, program->header_count * sizeof(ElfW(Phdr)), header.e_phoff);
}

/* Where in the file an address of the program is; 0: nowhere. */
static ElfW(Off) place_of(const struct program *program, ElfW(Addr) address)
{
	for (size_t i = 0; i < program->header_count; i++) {
		const ElfW(Phdr) *part = &program->headers[i];

		if (part->p_type == PT_LOAD && address >= part->p_vaddr && address - part->p_vaddr < part->p_filesz)
			return part->p_offset + (address - part->p_vaddr);
	}
	return 0;
}

/* The first library that the program needs and that must come first. */
static bool find_needed(const struct program *program, const ElfW(Dyn) *entries, size_t count, char *name, size_t size)
{
	ElfW(Off) strings = 0;

	for (size_t i = 0; i < count; i++)
		if (entries[i].d_tag == DT_STRTAB)
			strings = place_of(program, entries[i].d_un.d_ptr);
	for (size_t i = 0; strings != 0 && i < count && entries[i].d_tag != DT_NULL; i++) {
		ssize_t n = entries[i].d_tag == DT_NEEDED ? pread(program->fd, name, size - 1, (off_t)(strings + entries[i].d_un.d_val)) : 0;

		if (n <= 0)
			continue;
		name[n] = '\0';
		/* That of undefined behaviour may come anywhere. */
		if (is_sanitizer(name, strlen(name)) && strncmp(name, "libubsan.", 9) != 0 && !strpbrk(name, " :"))
			return true;
	}
	return false;
}

bool sanitizer_of(const char *command, char *name, size_t size)
{
	struct program program = {.fd = open_command(command)};
	bool found = false;

	if (program.fd < 0)
		return false;
	for (size_t i = 0; read_headers(&program) && i < program.header_count && !found; i++) {
		const ElfW(Phdr) *part = &program.headers[i];
		size_t count = part->p_filesz / sizeof(ElfW(Dyn));
		ElfW(Dyn) *entries;

		if (part->p_type != PT_DYNAMIC || count == 0 || count > DYNAMIC_MAX)
			continue;
		entries = calloc(count, sizeof *entries);
		found = entries && read_at(program.fd, entries, count * sizeof *entries, part->p_offset) &&
			find_needed(&program, entries, count, name, size);
		free(entries);
	}
	close(program.fd);
	return found;
}
