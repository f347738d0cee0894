//! How far a subscription has come: an opaque text that every gateway over the same store understands.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A place in the streams of a subscription. Keep it as text, and begin there again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(String);

/// What an envelope does to the cursor.
#[derive(Debug, Clone, Default)]
pub(super) enum Move {
    /// Nothing.
    #[default]
    Stay,
    /// This is it from now on.
    To(String),
    /// It goes on with this.
    On(String),
}

impl Cursor {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Move {
    /// To where a cursor is.
    pub(super) fn to(cursor: Option<&Cursor>) -> Self {
        cursor.map_or(Self::Stay, |cursor| Self::To(cursor.0.clone()))
    }

    /// Moves a cursor, if there is one to move. Returns whether it is another one now.
    pub(super) fn apply(&self, cursor: &mut Option<Cursor>) -> bool {
        match (self, cursor) {
            (Self::To(text), Some(Cursor(same))) if text == same => false,
            (Self::To(text), cursor) => {
                *cursor = Some(Cursor(text.clone()));
                true
            }
            (Self::On(part), Some(Cursor(text))) => {
                text.push('.');
                text.push_str(part);
                true
            }
            (Self::Stay, _) | (Self::On(_), None) => false,
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Cursor {
    type Err = Infallible;

    /// Takes any text; whether it is a cursor only the gateway knows.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl From<String> for Cursor {
    fn from(text: String) -> Self {
        Self(text)
    }
}
