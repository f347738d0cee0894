//! Principals, whose stored bytes and streams are limited, and the reasons for refusing more. `budget` counts the amounts.

use std::fmt;

/// The client that a quota applies to: the subject of its token (`auth::Grants::principal`), or else the address that it connects
/// from (`budget::principal_of`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal(pub u64);

impl Principal {
    /// The gateway itself, and everything stored before it started. It has no quota.
    pub const GATEWAY: Self = Self(u64::MAX);

    /// The first byte of the principals of subjects. No address gives it: in IPv6 it is that of multicast groups (RFC 4291, section
    /// 2.7), which nobody connects from.
    const SUBJECTS: u64 = 0xff << 56;

    /// The principal of a subject, from a digest of its name. It is the same after a restart.
    pub fn of_subject(digest: u64) -> Self {
        // Never that of the gateway.
        Self(Self::SUBJECTS | digest >> 8 & !1)
    }

    /// This principal, or `other` if this is the gateway.
    pub fn or(self, other: Self) -> Self {
        if self == Self::GATEWAY { other } else { self }
    }
}

impl Default for Principal {
    fn default() -> Self {
        Self::GATEWAY
    }
}

/// Why a valid creation or append is refused for lack of room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shortage {
    /// Stored messages use up the memory budget. Lasts until something is deleted or trimmed.
    Memory,
    /// Memory is short for the moment, because of requests in progress or until the allocator has returned some.
    Passing,
    /// The client has used up its share of the memory budget.
    Share,
    /// The maximum number of streams is reached.
    Streams,
    /// The client has used up its share of the streams.
    OwnStreams,
    /// The tenant of the client has used up its quota of memory.
    Tenant,
    /// The tenant of the client has its maximum number of streams.
    TenantStreams,
    /// The tenant of the client has its maximum number of held polls, live responses and connections open.
    TenantOpen,
}

impl Shortage {
    /// All reasons, for the metrics.
    pub const ALL: [Self; 8] = [
        Self::Memory,
        Self::Passing,
        Self::Share,
        Self::Streams,
        Self::OwnStreams,
        Self::Tenant,
        Self::TenantStreams,
        Self::TenantOpen,
    ];

    /// A short name for programs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory-full",
            Self::Passing => "memory-short",
            Self::Share => "share-used-up",
            Self::Streams => "streams-max",
            Self::OwnStreams => "share-of-streams-used-up",
            Self::Tenant => "tenant-full",
            Self::TenantStreams => "tenant-streams-max",
            Self::TenantOpen => "tenant-open-max",
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => {
                "the memory budget (--memory-max) is used up; delete streams or lower their retention"
            }
            Self::Passing => "memory is short at the moment; try again later",
            Self::Share => "this client has used up its share of the memory budget (principal_share_percent)",
            Self::Streams => "the maximum number of streams is reached (streams_max)",
            Self::OwnStreams => {
                "this client has used up its share of the streams (principal_share_percent of streams_max)"
            }
            Self::Tenant => "this tenant has used up its quota of memory (bytes_max); delete streams or lower their retention",
            Self::TenantStreams => "this tenant has its maximum number of streams (streams_max)",
            Self::TenantOpen => {
                "this tenant has its maximum number of held polls, live responses and connections open (open_max)"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shortage_has_a_word_and_a_sentence_of_its_own() {
        for (index, one) in Shortage::ALL.into_iter().enumerate() {
            for other in Shortage::ALL.into_iter().skip(index + 1) {
                assert_ne!(one.as_str(), other.as_str());
                assert_ne!(one.to_string(), other.to_string());
            }
        }
    }
}
