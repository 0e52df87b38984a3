/* SPDX-License-Identifier: Apache-2.0 */
/* Why a certificate was not accepted, in words that tell what to do. OpenSSL's own words need knowledge of X.509. */
#ifndef SRDMA_VERIFY_TEXT_H
#define SRDMA_VERIFY_TEXT_H

/* Of an X509_V_ERR_*. Static. */
const char *srdma_verify_text(long error);
/* Of the reason in OpenSSL's error queue that stands for a peer's alert about our certificate; NULL: it is none. Static. */
const char *srdma_alert_text(int reason);

#endif
