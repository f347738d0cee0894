//! Authorization: what a client may do, and how it proves it.
//!
//! A front turns the credentials of a request into [`Grants`] with the [`Authenticator`], and calls [`authorize`] before it asks the
//! hub for anything. [`Tickets`] stand for a token in URLs. Grants are pure: no clock, no keys, no IO. Tokens are JSON Web Tokens (RFC 7519) that an issuer of the settings
//! has signed; [`issue`] makes keys and tokens for gateways without an issuer of their own.

mod admin_token;
mod authenticator;
mod certificates;
mod claims;
mod crypto;
mod failed_logins;
mod fetch;
mod grants;
pub mod issue;
mod jids;
mod key_url;
mod keys;
mod revocation;
mod scram;
mod settings;
mod standing;
mod strict_json;
mod tickets;
mod users;
mod verified;

pub use admin_token::AdminToken;
pub use authenticator::life::{EndOfRights, RightsEnd};
pub use authenticator::{Authenticator, Unauthorized};
pub use grants::{
    Action, CredentialRecord, Forbidden, GrantList, Grants, authorize, authorize_filter, is_own,
};
pub use revocation::{InvalidRevocation, REVOCATIONS_MAX, Revocation};
pub use scram::{ScramError, ScramExchange, ScramHash, ScramOutcome};
pub use settings::{
    AuthError, AuthSettings, CertificateName, CertificateRule, IssuerSettings, JidRule, Rule, TenantSettings,
    UserSettings,
};
pub use standing::CoarseStanding;
pub use tickets::{TICKET_LIFE, TicketRefused, TicketScope, Tickets};
pub use users::Users;
