/* SPDX-License-Identifier: Apache-2.0 */
/* Lines at the program's standard error. */
#ifndef WRAP_MESSAGE_H
#define WRAP_MESSAGE_H

/* Writes "securdma wrap: <text>" in one write(2), past the program's stdio. A program that has very much refused gets the first
 * messages, and then some each second and the number of those left out. errno stays as it is. */
void message(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
