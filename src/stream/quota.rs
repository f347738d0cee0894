//! Who stores something, and why there is no room for it. The amounts are counted in `budget`.

use std::fmt;

/// Who a client is as far as quotas go: the address that it connects from (`budget::principal_of`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal(pub u64);

impl Principal {
    /// The gateway itself, and what was stored before it started. No share bounds it.
    pub const GATEWAY: Self = Self(u64::MAX);
}

impl Default for Principal {
    fn default() -> Self {
        Self::GATEWAY
    }
}

/// Why a stream or an append is refused although nothing is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shortage {
    /// What is stored leaves no room in the memory budget. It lasts until something is deleted or trimmed.
    Memory,
    /// Memory is short because of requests under way, or until the allocator has given some back.
    Passing,
    /// What the client has stored is its share of the memory budget.
    Share,
    /// There are as many streams as there may be.
    Streams,
    /// The client has created its share of the streams.
    OwnStreams,
}

impl Shortage {
    /// Every reason.
    pub const ALL: [Self; 5] = [Self::Memory, Self::Passing, Self::Share, Self::Streams, Self::OwnStreams];

    /// A word for programs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory-full",
            Self::Passing => "memory-short",
            Self::Share => "share-used-up",
            Self::Streams => "streams-max",
            Self::OwnStreams => "share-of-streams-used-up",
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => {
                "the memory budget (--memory-max) is used up; delete streams, or let them keep less"
            }
            Self::Passing => "memory is short at the moment",
            Self::Share => {
                "what this address has stored is its share of the memory budget (principal_share_percent)"
            }
            Self::Streams => "there are as many streams as there may be (streams_max)",
            Self::OwnStreams => {
                "this address has created its share of the streams (principal_share_percent of streams_max)"
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
