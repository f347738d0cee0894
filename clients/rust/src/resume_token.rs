//! Resume tokens: the position of a subscription in its streams, as opaque text.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Position of a subscription in all of its streams. It is opaque text that you can keep, and give to
/// [`Start::after`](crate::Start::after).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResumeToken(String);

/// Change of a resume token by an envelope.
#[derive(Debug, Clone, Default)]
pub(crate) enum TokenChange {
    /// No change.
    #[default]
    Unchanged,
    /// A new resume token.
    Replace(String),
    /// A further part, which is appended.
    Append(String),
}

impl ResumeToken {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TokenChange {
    /// Change to a resume token.
    pub(crate) fn to(token: Option<&ResumeToken>) -> Self {
        token.map_or(Self::Unchanged, |token| Self::Replace(token.0.clone()))
    }

    /// Applies the change. Returns whether the resume token is another one now.
    pub(crate) fn apply(&self, token: &mut Option<ResumeToken>) -> bool {
        match (self, token) {
            (Self::Replace(text), Some(ResumeToken(same))) if text == same => false,
            (Self::Replace(text), token) => {
                *token = Some(ResumeToken(text.clone()));
                true
            }
            (Self::Append(part), Some(ResumeToken(text))) => {
                text.push('.');
                text.push_str(part);
                true
            }
            (Self::Unchanged, _) | (Self::Append(_), None) => false,
        }
    }
}

impl fmt::Display for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ResumeToken {
    type Err = Infallible;

    /// Accepts any text. The gateway refuses text that is not a resume token.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl From<String> for ResumeToken {
    fn from(text: String) -> Self {
        Self(text)
    }
}
