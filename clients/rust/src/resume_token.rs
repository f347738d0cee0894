//! How far a subscription has come: an opaque text that every gateway over the same store understands.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A place in the streams of a subscription. Keep it as text, and begin there again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResumeToken(String);

/// What an envelope does to the resume token.
#[derive(Debug, Clone, Default)]
pub(crate) enum Move {
    /// Nothing.
    #[default]
    Stay,
    /// This is it from now on.
    To(String),
    /// It goes on with this.
    On(String),
}

impl ResumeToken {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Move {
    /// To where a resume token is.
    pub(crate) fn to(token: Option<&ResumeToken>) -> Self {
        token.map_or(Self::Stay, |token| Self::To(token.0.clone()))
    }

    /// Moves a resume token, if there is one to move. Returns whether it is another one now.
    pub(crate) fn apply(&self, token: &mut Option<ResumeToken>) -> bool {
        match (self, token) {
            (Self::To(text), Some(ResumeToken(same))) if text == same => false,
            (Self::To(text), token) => {
                *token = Some(ResumeToken(text.clone()));
                true
            }
            (Self::On(part), Some(ResumeToken(text))) => {
                text.push('.');
                text.push_str(part);
                true
            }
            (Self::Stay, _) | (Self::On(_), None) => false,
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

    /// Takes any text; whether it is a resume token only the gateway knows.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl From<String> for ResumeToken {
    fn from(text: String) -> Self {
        Self(text)
    }
}
