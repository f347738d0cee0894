//! The token of the admin listener: a secret of the operator, of which the gateway keeps a digest.

use std::path::Path;

use ring::digest::{Digest, SHA256, digest};

use super::settings::AuthError;

/// The shortest secret, in bytes: it is not meant to be a word.
const SECRET_BYTES_MIN: usize = 32;

/// The longest one.
const SECRET_BYTES_MAX: usize = 1024;

/// The secret that requests to the admin listener have to bring.
#[derive(Debug)]
pub struct AdminToken(Digest);

impl AdminToken {
    /// Reads the secret in a file, without white space around it.
    pub fn read(path: &Path) -> Result<Self, AuthError> {
        let secret = std::fs::read(path).map_err(|error| AuthError::Read { path: path.to_owned(), error })?;
        let secret = secret.trim_ascii();
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
            let why = format!(
                "the token of the admin listener must have {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, such as those of \
                 `openssl rand -hex 32`"
            );
            return Err(AuthError::Keys { path: path.to_owned(), why });
        }
        Ok(Self(digest(&SHA256, secret)))
    }

    /// Whether the value of an `Authorization` field has the secret. Digests are compared, so that the time tells nothing of it.
    pub fn is_in(&self, authorization: Option<&[u8]>) -> bool {
        let parts = authorization.and_then(|value| value.split_at_checked(7));
        parts.is_some_and(|(scheme, secret)| {
            let digest = digest(&SHA256, secret.trim_ascii());
            scheme.eq_ignore_ascii_case(b"bearer ") && digest.as_ref() == self.0.as_ref()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_of_the_file_and_no_other_is_accepted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let secret = "0123456789abcdef0123456789abcdef";
        std::fs::write(file.path(), format!("{secret}\n")).unwrap();
        let token = AdminToken::read(file.path()).unwrap();
        let is_in = |value: &str| token.is_in(Some(value.as_bytes()));
        assert!(is_in(&format!("Bearer {secret}")) && is_in(&format!("bearer  {secret}")));
        for other in
            [secret.to_owned(), format!("Basic {secret}"), format!("Bearer {secret}0"), "Bearer".into()]
        {
            assert!(!is_in(&other), "{other}");
        }
        assert!(!token.is_in(None) && !is_in("Bearer "));
        std::fs::write(file.path(), "short").unwrap();
        assert!(AdminToken::read(file.path()).unwrap_err().to_string().contains("32 to 1024 bytes"));
    }
}
