/* SPDX-License-Identifier: Apache-2.0 */
#include "control_reload.h"

#include "cli.h"

json_t *control_answer_reload(control_reload_fn *reload, void *arg)
{
	json_t *later = json_array();
	const char *errors;
	bool done;

	cli_log_collect();
	done = reload(arg, later);
	errors = cli_log_collected();
	if (done)
		return json_pack("{s:b, s:o}", "ok", 1, "later", later);
	json_decref(later);
	return json_pack("{s:b, s:s}", "ok", 0, "error", errors);
}

void control_name_what_stays(const struct option *option, void *later)
{
	if (option->commands & AT_RELOAD)
		return;
	cli_log(SRDMA_LOG_WARN, "reload: the new value of %s takes effect at the next start", option->flag);
	if (later)
		json_array_append_new(later, json_string(option->flag));
}
