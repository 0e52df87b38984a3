/* SPDX-License-Identifier: Apache-2.0 */
/* Why a certificate was not accepted, and how to fix that. OpenSSL's own texts assume knowledge of X.509. */
#ifndef SRDMA_VERIFY_TEXT_H
#define SRDMA_VERIFY_TEXT_H

/* The text for an X509_V_ERR_*. Static. */
const char *srdma_verify_text(long error);
/* The text for a reason in OpenSSL's error queue that stands for a peer's alert about our certificate; NULL: no such reason. Static. */
const char *srdma_alert_text(int reason);

#endif
