//! Finds the streams of wildcard filters: somebody subscribes to streams here that nobody names, so that the parent has to be asked for their
//! names again and again. What is found is followed like a stream with a reader, as long as there is such a filter.
//!
//! One request at a time is under way, and after each round there is a pause of ten times its duration. So however many filters clients
//! have, they take a small part of what one connection to the parent carries.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::shared::{UpstreamShared, WildcardFilters};
use crate::stream::{Failure, Filter, NewsListener, Offset, StreamName, split_tenant};

/// The shortest pause between two rounds. A stream is found after it at the latest, if the parent answers fast.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The pause after a round, as a multiple of its duration.
const PAUSE_PART: u32 = 10;

/// Prefixes of names that one round asks for. If the filters have more, it asks for all names.
const PREFIXES_MAX: usize = 64;

/// Finds streams until it is aborted.
pub(super) async fn discover(shared: Arc<UpstreamShared>, listener: Arc<dyn NewsListener>) {
    let mut held: HashSet<StreamName> = HashSet::new();
    loop {
        while shared.wildcards.lock().is_empty() && held.is_empty() {
            shared.wildcards_changed.notified().await;
        }
        let filters = shared.wildcards.lock().clone();
        let started = Instant::now();
        // The request logs its failure. The streams that are followed already stay followed.
        if let Ok(found) = find(&shared, &filters).await {
            let gone = |name: &StreamName| !found.contains_key(name);
            held.extract_if(gone).for_each(|name| shared.detach(&name, SystemTime::UNIX_EPOCH));
            for (name, tail) in found {
                if !held.contains(&name) && shared.attach(&name) {
                    // Wakes the subscribers of wildcards, which read a stream that is new to them from its beginning.
                    listener.moved(&name, tail.epoch, tail.position, false);
                    held.insert(name);
                }
            }
        }
        sleep(PAUSE_MIN.max(PAUSE_PART * started.elapsed())).await;
    }
}

/// The streams of the parent that some filter matches, as many as may be followed.
async fn find(
    shared: &UpstreamShared,
    filters: &WildcardFilters,
) -> Result<HashMap<StreamName, Offset>, Failure> {
    let mut found = HashMap::new();
    for prefix in prefixes(filters) {
        let mut after = None;
        loop {
            // `None`: the parent does not tell this tenant's.
            let Some(page) = shared.parent.names(&prefix, after.as_ref()).await? else { break };
            found.extend(page.streams.into_iter().filter(|(name, _)| filters.matches(name)));
            after = page.next;
            if after.is_none() || found.len() >= shared.streams_max() {
                break;
            }
        }
    }
    Ok(found)
}

/// What the names begin with that the filters match, none of which begins with another one of the same tenant.
fn prefixes(filters: &WildcardFilters) -> Vec<String> {
    let mut prefixes: Vec<String> =
        filters.filters().map(|filter: &Filter| filter.prefix().to_owned()).collect();
    prefixes.sort_unstable_by(|one, other| split_tenant(one).cmp(&split_tenant(other)));
    prefixes
        .dedup_by(|later, earlier| later.starts_with(&**earlier) && tenant_of(later) == tenant_of(earlier));
    if prefixes.len() > PREFIXES_MAX {
        prefixes.iter_mut().for_each(|prefix| prefix.truncate(tenant_of(prefix).len()));
        prefixes.sort_unstable();
        prefixes.dedup();
    }
    prefixes
}

/// The prefix of the names of the tenant that a filter belongs to.
fn tenant_of(prefix: &str) -> &str {
    split_tenant(prefix).0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes_of(texts: &[&str]) -> Vec<String> {
        let mut filters = WildcardFilters::default();
        for text in texts {
            filters.insert(Filter::parse(text).unwrap(), 1);
        }
        prefixes(&filters)
    }

    #[test]
    fn a_round_asks_for_each_name_once_and_for_a_bounded_number_of_prefixes() {
        assert_eq!(prefixes_of(&["a/#", "a/b/+", "b/+/c"]), ["a", "b/"]);
        assert_eq!(prefixes_of(&["a/#", "+/x"]), [""]);
        let of_tenants = ["#", "a/#", "$tenant/acme/#", "$tenant/acme/a/#", "$tenant/b/a/#"];
        assert_eq!(prefixes_of(&of_tenants), ["", "$tenant/acme/", "$tenant/b/a"]);
        let many: Vec<_> = (0..=PREFIXES_MAX).map(|number| format!("s{number}x/+")).collect();
        let mut many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(prefixes_of(&many), [""]);
        many.push("$tenant/acme/a/#");
        assert_eq!(prefixes_of(&many), ["", "$tenant/acme/"]);
    }
}
