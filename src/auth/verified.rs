//! Remembers tokens that were verified, so that a client that polls costs one digest and not one signature for each request.
//!
//! Entries are in two generations. A new one begins when the current one is half of what is remembered, and the oldest is then
//! forgotten; a token that is in use moves to the current one. So a look-up takes a lock for reading and writes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use ring::digest::{SHA256, digest};

use super::grants::Grants;

/// Tokens that are remembered, of about 500 bytes each.
const TOKENS_MAX: usize = 10_000;

/// Memory of their grants. Those of one token may have 16 KiB.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Parts with locks of their own.
const SHARDS: usize = 16;

/// Tokens of one generation of one shard.
const GENERATION_MAX: usize = TOKENS_MAX / SHARDS / 2;

/// Memory of the grants of one generation of one shard, which the last token may exceed.
const GENERATION_BYTES_MAX: usize = BYTES_MAX / SHARDS / 2;

/// The digest of a token. Tokens themselves are not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenDigest([u8; 32]);

/// A token that was verified.
#[derive(Debug, Clone)]
pub(super) struct VerifiedToken {
    /// The number of changes after which the token was known to stand.
    pub(super) changes: u64,
    pub(super) grants: Arc<Grants>,
}

/// Verified tokens by their digests.
#[derive(Debug, Default)]
pub(super) struct VerifiedTokens {
    shards: [RwLock<Generations>; SHARDS],
}

#[derive(Debug, Default)]
struct Generations {
    current: HashMap<TokenDigest, VerifiedToken>,
    older: HashMap<TokenDigest, VerifiedToken>,
    /// Memory of the grants of `current`.
    bytes: usize,
}

impl TokenDigest {
    pub(super) fn of(token: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token).as_ref());
        Self(bytes)
    }

    /// The first bytes, which differ between tokens.
    pub(super) fn beginning(&self) -> u64 {
        self.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

impl VerifiedTokens {
    pub(super) fn get(&self, token: &TokenDigest) -> Option<VerifiedToken> {
        let shard = self.shard(token)?;
        {
            let generations = shard.read();
            if let Some(found) = generations.current.get(token) {
                return Some(found.clone());
            }
            if !generations.older.contains_key(token) {
                return None;
            }
        }
        let mut generations = shard.write();
        let found = generations.older.remove(token)?;
        generations.insert(*token, found.clone());
        Some(found)
    }

    pub(super) fn insert(&self, token: TokenDigest, verified: VerifiedToken) {
        if let Some(shard) = self.shard(&token) {
            shard.write().insert(token, verified);
        }
    }

    fn shard(&self, TokenDigest(bytes): &TokenDigest) -> Option<&RwLock<Generations>> {
        self.shards.get(usize::from(bytes[0]) % SHARDS)
    }
}

impl Generations {
    fn insert(&mut self, token: TokenDigest, verified: VerifiedToken) {
        if self.current.len() >= GENERATION_MAX || self.bytes >= GENERATION_BYTES_MAX {
            (self.older, self.bytes) = (std::mem::take(&mut self.current), 0);
        }
        self.bytes += verified.grants.bytes();
        if let Some(replaced) = self.current.insert(token, verified) {
            self.bytes -= replaced.grants.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::grants::GrantList;
    use crate::stream::Filter;

    fn digest_of(number: u64) -> TokenDigest {
        TokenDigest::of(&number.to_be_bytes())
    }

    fn verified(changes: u64) -> VerifiedToken {
        VerifiedToken { changes, grants: Arc::new(Grants::everything()) }
    }

    #[test]
    fn tokens_in_use_stay_and_the_number_of_others_is_bounded() {
        let tokens = VerifiedTokens::default();
        tokens.insert(digest_of(0), verified(7));
        for number in 1..20_000 {
            tokens.insert(digest_of(number), verified(number));
            assert_eq!(tokens.get(&digest_of(0)).unwrap().changes, 7);
        }
        let is_known = |number: &u64| tokens.get(&digest_of(*number)).is_some();
        assert!((19_000..20_000).all(|number| is_known(&number)));
        let known = (0..20_000).filter(is_known).count();
        assert!((1001..=TOKENS_MAX).contains(&known), "{known}");
    }

    #[test]
    fn large_grants_are_bounded_by_their_memory() {
        let tokens = VerifiedTokens::default();
        let filters: Vec<_> =
            (0..60).map(|number| Filter::parse(&format!("{number}/{}", "x".repeat(100))).unwrap()).collect();
        let list = GrantList { read: filters, ..GrantList::default() };
        let grants = || Arc::new(Grants::anonymous(list.clone()));
        for number in 0..5000 {
            tokens.insert(digest_of(number), VerifiedToken { changes: 0, grants: grants() });
        }
        let bytes: usize = (0..5000)
            .filter_map(|number| tokens.get(&digest_of(number)))
            .map(|token| token.grants.bytes())
            .sum();
        let of_one = grants().bytes();
        assert!(of_one > 60 * 100);
        assert!((BYTES_MAX / 4..=BYTES_MAX + 2 * SHARDS * of_one).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_newer_entry_replaces_an_older_one() {
        let tokens = VerifiedTokens::default();
        tokens.insert(digest_of(0), verified(1));
        tokens.insert(digest_of(0), verified(2));
        assert_eq!(tokens.get(&digest_of(0)).unwrap().changes, 2);
        assert!(tokens.get(&digest_of(1)).is_none());
    }
}
