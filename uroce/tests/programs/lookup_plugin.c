/* SPDX-License-Identifier: Apache-2.0 */
/* A plugin that is linked with libibverbs. */
#include "lookup.h"

void give_functions(struct functions *verbs);
void give_functions(struct functions *verbs)
{
#define X(name, version) verbs->name = name;
	FUNCTIONS(X)
#undef X
}
