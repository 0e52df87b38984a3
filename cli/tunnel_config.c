/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void offer_init(struct tunnel_offer *offer, const struct tunnel_target *target)
{
	*offer = (struct tunnel_offer){0};
	snprintf(offer->name, sizeof offer->name, "%s", target->name);
	for (const struct addrinfo *at = target->found; at && offer->count < TUNNEL_ADDRESSES_MAX; at = at->ai_next) {
		struct tunnel_address *address = &offer->addresses[offer->count];

		if (at->ai_addrlen > sizeof address->address)
			continue;
		memcpy(&address->address, at->ai_addr, at->ai_addrlen);
		address->length = at->ai_addrlen;
		offer->count++;
	}
}

/* Adds what the sections [identity NAME] say. */
static bool take_grants(struct tunnel_config *config, const struct identities *identities)
{
	for (size_t i = 0; i < identities->count; i++) {
		const struct identity *identity = &identities->items[i];
		struct tunnel_grant *grant = &config->grants[config->grant_count];

		if (!identity->tunnel_allow)
			continue;
		grant->name = strdup(identity->name);
		grant->list = strdup(identity->tunnel_allow);
		config->grant_count++;
		if (!grant->name || !grant->list)
			return false;
	}
	return true;
}

struct tunnel_config *tunnel_config_new(const struct settings *settings)
{
	const struct tunnel_targets *targets = &settings->tunnel_targets;
	struct tunnel_config *config = calloc(1, sizeof *config);

	if (!config)
		return NULL;
	config->connect_timeout_ms = (int)settings->tunnel_connect_timeout_ms;
	config->idle_timeout_ms = (int)settings->tunnel_idle_timeout_ms;
	config->offers = calloc(targets->count + 1, sizeof *config->offers);
	config->grants = calloc(settings->identities.count + 1, sizeof *config->grants);
	if (settings->tunnel_allow)
		config->list = strdup(settings->tunnel_allow);
	if (!config->offers || !config->grants || (settings->tunnel_allow && !config->list) || !take_grants(config, &settings->identities)) {
		tunnel_config_free(config);
		return NULL;
	}
	for (size_t i = 0; i < targets->count; i++)
		offer_init(&config->offers[config->offer_count++], &targets->items[i]);
	return config;
}

static const char *list_of(const struct tunnel_config *config, const char *peer_name)
{
	for (size_t i = 0; i < config->grant_count; i++)
		if (strcmp(config->grants[i].name, peer_name) == 0)
			return config->grants[i].list;
	return config->list;
}

const struct tunnel_offer *tunnel_config_offer(const struct tunnel_config *config, const char *name)
{
	for (size_t i = 0; i < config->offer_count; i++)
		if (strcmp(config->offers[i].name, name) == 0)
			return &config->offers[i];
	return NULL;
}

void tunnel_config_keep(struct tunnel_config *config, const struct tunnel_targets *targets, const uint16_t *ports, size_t port_count,
			const struct tunnel_config *old)
{
	size_t kept = 0;

	for (size_t i = 0; config->offers && i < config->offer_count; i++) {
		const struct tunnel_offer *offer = &config->offers[i];
		const struct tunnel_target *target = tunnel_targets_find(targets, offer->name);

		if (!target || !tunnel_target_is_on(target, ports, port_count))
			offer = old ? tunnel_config_offer(old, offer->name) : NULL;
		if (offer)
			config->offers[kept++] = *offer;
	}
	config->offer_count = kept;
}

const struct tunnel_offer *tunnel_config_find(const struct tunnel_config *config, const char *peer_name, const char *target)
{
	if (!peer_name || !peer_name[0] || !tunnel_list_has(list_of(config, peer_name), target))
		return NULL;
	return tunnel_config_offer(config, target);
}

void tunnel_config_free(struct tunnel_config *config)
{
	if (!config)
		return;
	for (size_t i = 0; i < config->grant_count; i++) {
		free(config->grants[i].name);
		free(config->grants[i].list);
	}
	free(config->grants);
	free(config->offers);
	free(config->list);
	free(config);
}
