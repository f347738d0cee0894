//! Keeps authorization up to date while the server runs: keys and the certificate that change, and what is open with tokens that no
//! longer stand.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::tls::Certificates;
use crate::auth::{AuthError, Authenticator, TenantSettings};
use crate::budget::{AppendRate, Quota, TenantQuotas};
use crate::clock::Clock;
use crate::hub::{CredentialMark, Hub};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::stream::Tenant;

/// How often the files with the keys of token issuers are checked for changes.
const KEYS_INTERVAL: Duration = Duration::from_secs(1);

/// Reads the keys of token issuers and the certificates again when their files change. Runs until the task is aborted.
pub(super) async fn watch_keys(
    auth: Arc<Authenticator>,
    certificates: Option<Arc<Certificates>>,
    clock: Clock,
) {
    let (mut known, mut offset) = (Vec::new(), clock.wall_offset());
    while auth.is_enabled() || certificates.is_some() {
        sleep(KEYS_INTERVAL).await;
        // Timers do not notice when the time of day is set.
        if std::mem::replace(&mut offset, clock.wall_offset()) != offset {
            auth.time_was_set();
        }
        let (auth, certificates) = (auth.clone(), certificates.clone());
        // Each is read even if others cannot be used.
        let reload = move || {
            let mut errors: Vec<_> = auth.reload().err().map(|error| error.to_string()).into_iter().collect();
            let (has_changed, of_certificates) =
                certificates.as_ref().map(|certificates| certificates.reload()).unwrap_or_default();
            if has_changed {
                tracing::info!("read a changed certificate");
            }
            errors.extend(of_certificates.iter().map(ToString::to_string));
            errors.extend(
                revoke_certificates(&auth, certificates.as_deref()).err().map(|error| error.to_string()),
            );
            errors
        };
        let Ok(errors) = spawn_blocking(reload).await else { return };
        // Once, and not each second.
        for error in errors.iter().filter(|error| !known.contains(*error)) {
            tracing::warn!("the keys and the certificate that were read last stay in use: {error}");
        }
        known = errors;
    }
}

/// Revokes the client certificates of the lists that were read since the last call, so that what is open with them ends.
pub(super) fn revoke_certificates(
    auth: &Authenticator,
    certificates: Option<&Certificates>,
) -> Result<(), AuthError> {
    let Some(lists) = certificates.and_then(Certificates::take_revoked) else { return Ok(()) };
    auth.revoke_certificates(lists.iter().map(AsRef::as_ref))
}

/// The quotas of tenants that the settings give.
pub(super) fn quotas(settings: &[TenantSettings]) -> Result<TenantQuotas, AuthError> {
    let (mut named, mut others) = (HashMap::new(), None);
    for tenant in settings {
        let appends = tenant.appends_per_second_max.unwrap_or(0);
        let quota = Quota {
            bytes_max: tenant.bytes_max,
            streams_max: tenant.streams_max,
            open_max: tenant.open_max,
            rate: AppendRate::new(appends, tenant.append_bytes_per_second_max.unwrap_or(0)),
        };
        let earlier = match tenant.tenant()? {
            Some(tenant) => named.insert(tenant, quota),
            None => others.replace(quota),
        };
        if earlier.is_some() {
            return Err(AuthError::SameTenant);
        }
    }
    Ok(TenantQuotas::new(named, others.unwrap_or_default()))
}

/// The metrics, by tenant if the gateway checks credentials.
pub(super) fn metrics(auth: &Authenticator, tenants: &BTreeSet<Tenant>, limits: &Limits) -> Metrics {
    if !auth.is_enabled() {
        return Metrics::new();
    }
    let named = tenants.iter().take(limits.tenant_metrics_max);
    let named = named.map(|tenant| (tenant.to_string(), tenant.prefix().to_owned()));
    Metrics::new().by_tenant(&named.collect::<Vec<_>>())
}

/// Ends held polls whose tokens no longer stand. Runs until the task is aborted.
pub(super) async fn end_unauthorized_polls(auth: Arc<Authenticator>, hub: Arc<Hub>) {
    auth.watch(|standing| {
        hub.end_polls(|CredentialMark(key_and_id, subject_and_time)| {
            !standing.allows((key_and_id, subject_and_time))
        });
    })
    .await;
}

/// Removes the devices that were registered with credentials that were revoked: before the start, and from then on. Runs until the task
/// is aborted.
pub(super) async fn remove_revoked_devices(auth: Arc<Authenticator>, hub: Arc<Hub>) {
    let revoked = Notify::new();
    let remove = async {
        loop {
            hub.remove_devices(|credentials| auth.has_revoked(credentials)).await;
            revoked.notified().await;
        }
    };
    tokio::join!(remove, auth.watch(|_| revoked.notify_one()));
}

/// Keeps the keys of token issuers with a URL fresh. Runs until the task is aborted.
pub(super) async fn fetch_keys(auth: Arc<Authenticator>, metrics: Arc<Metrics>) {
    auth.fetch_keys(|| metrics.key_fetch_failed()).await;
}

#[cfg(test)]
mod tests;
