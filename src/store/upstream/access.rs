//! [`UpstreamAccess`]: the token with which an edge asks its parent for the streams of each tenant.
//!
//! The parent tells tenants apart by their tokens, so the streams of a tenant without a token are never asked for: without one, the
//! parent would answer for the tenant `default`.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::HeaderValue;
use parking_lot::RwLock;
use pollgate_client::{BuildError, Client, Settings, Token};

use super::options::{UpstreamError, UpstreamOptions, read, read_token};
use crate::stream::{Failure, Tenant};

/// The longest delay between two attempts to subscribe.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// What the parent answers to requests with a wrong token, and what requests for a tenant without one get.
const UNAUTHORIZED: u16 = 401;

/// The tokens of an edge, and its clients of the parent that use them.
pub(super) struct UpstreamAccess {
    url: String,
    /// Authorities that are trusted besides those of the operating system, as PEM.
    authorities: Option<String>,
    /// File with the token for the default tenant.
    file: Option<PathBuf>,
    /// Folder with a file for each tenant, which has its name.
    directory: Option<PathBuf>,
    tenants: RwLock<HashMap<Tenant, TenantAccess>>,
}

struct TenantAccess {
    /// The token as text, and as the header field of single requests. `None`: requests have none.
    token: Option<(String, HeaderValue)>,
    /// The token of the client.
    shared: Option<Token>,
    /// Follows streams.
    client: Client,
}

impl UpstreamAccess {
    /// Reads all tokens.
    ///
    /// # Errors
    ///
    /// A file or the folder cannot be read, or has something else than tokens of tenants.
    pub(super) fn open(options: &UpstreamOptions) -> Result<Self, UpstreamError> {
        let access = Self {
            url: options.url.clone(),
            authorities: options.ca.as_deref().map(read).transpose()?,
            file: options.token_file.clone(),
            directory: options.token_directory.clone(),
            tenants: RwLock::default(),
        };
        let files = access.files()?;
        let read = files.into_iter().map(|(tenant, path)| Ok((tenant, read_token(&path)?)));
        access.replace(read.collect::<Result<_, UpstreamError>>()?)?;
        Ok(access)
    }

    /// An edge of one tenant, which needs no token.
    #[cfg(test)]
    pub(super) fn open_to_all(url: &str) -> Self {
        let (authorities, file, directory, tenants) = Default::default();
        let access = Self { url: url.to_owned(), authorities, file, directory, tenants };
        access.replace(HashMap::new()).unwrap();
        access
    }

    /// Returns `Authorization` of requests for the streams of a tenant. `None`: the parent asks for no token.
    ///
    /// # Errors
    ///
    /// The edge has no token for this tenant.
    pub(super) fn authorization(&self, tenant: &Tenant) -> Result<Option<HeaderValue>, Failure> {
        let tenants = self.tenants.read();
        let access = tenants.get(tenant).ok_or(Failure::UpstreamRefused(UNAUTHORIZED))?;
        Ok(access.token.as_ref().map(|(_, field)| field.clone()))
    }

    /// Returns the client that follows the streams of a tenant. `None`: the edge has no token for this tenant.
    pub(super) fn client(&self, tenant: &Tenant) -> Option<Client> {
        Some(self.tenants.read().get(tenant)?.client.clone())
    }

    /// Reads the tokens again, for changes. A file that cannot be used, such as one that is being replaced, keeps its token. Blocks.
    pub(super) fn refresh(&self) {
        let files = match self.files() {
            Ok(files) => files,
            Err(error) => {
                tracing::warn!(%error, "the tokens for the upstream gateway stay as they are");
                return;
            }
        };
        let mut tokens = HashMap::new();
        for (tenant, path) in files {
            let before = || {
                let tenants = self.tenants.read();
                tenants.get(&tenant).and_then(|access| Some(access.token.as_ref()?.0.clone()))
            };
            if let Some(token) = read_token(&path).ok().or_else(before) {
                tokens.insert(tenant, token);
            }
        }
        if let Err(error) = self.replace(tokens) {
            tracing::warn!(%error, "cannot use the new tokens for the upstream gateway");
        }
    }

    /// The files with tokens, by tenant.
    fn files(&self) -> Result<HashMap<Tenant, PathBuf>, UpstreamError> {
        let mut files: HashMap<_, _> =
            self.file.iter().map(|file| (Tenant::default(), file.clone())).collect();
        let Some(directory) = &self.directory else { return Ok(files) };
        let failed = |error| UpstreamError::Read { path: directory.clone(), error };
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // Such as `..data`, which a mounted secret of Kubernetes has.
            if !name.starts_with('.') {
                let tenant = Tenant::parse(name).map_err(|_| UpstreamError::Tenant(path.clone()))?;
                files.insert(tenant, path);
            }
        }
        Ok(files)
    }

    /// Uses these tokens from now on. Clients are built without the lock, for which requests wait. There is one caller at a time.
    fn replace(&self, tokens: HashMap<Tenant, String>) -> Result<(), BuildError> {
        // Without a token, the parent serves the default tenant, if anybody may read it.
        let is_anonymous = |access: &TenantAccess| access.token.is_none();
        let has_default = tokens.contains_key(&Tenant::default())
            || self.tenants.read().get(&Tenant::default()).is_some_and(is_anonymous);
        let anonymous = if has_default { None } else { Some(self.access(None)?) };
        {
            let mut tenants = self.tenants.write();
            tenants.retain(|tenant, access| tokens.contains_key(tenant) || is_anonymous(access));
            tenants.extend(anonymous.map(|access| (Tenant::default(), access)));
        }
        for (tenant, token) in tokens {
            let is_replaced =
                self.tenants.write().get_mut(&tenant).is_some_and(|access| access.replace(&token));
            if !is_replaced {
                let access = self.access(Some(&token))?;
                self.tenants.write().insert(tenant, access);
            }
        }
        Ok(())
    }

    fn access(&self, token: Option<&str>) -> Result<TenantAccess, BuildError> {
        let settings = Settings { backoff_max: BACKOFF_MAX, times: true, ..Settings::default() };
        let mut builder = Client::builder(&self.url).settings(settings);
        if let Some(authorities) = &self.authorities {
            builder = builder.root_certificates(authorities);
        }
        let shared = token.and_then(|token| Token::new(token).ok());
        if let Some(shared) = &shared {
            builder = builder.token(shared.clone());
        }
        let token = token.and_then(|token| Some((token.to_owned(), field_of(token)?)));
        Ok(TenantAccess { token, shared, client: builder.build()? })
    }
}

impl TenantAccess {
    /// Uses another token, also for what is followed. Returns `false` if the client has no token that could be replaced.
    fn replace(&mut self, token: &str) -> bool {
        let (Some(shared), Some(field)) = (&self.shared, field_of(token)) else { return false };
        if self.token.as_ref().is_none_or(|(current, _)| current != token) {
            self.token = Some((token.to_owned(), field));
            return shared.replace(token).is_ok();
        }
        true
    }
}

fn field_of(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl fmt::Debug for UpstreamAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UpstreamAccess").field(&self.url).finish()
    }
}
