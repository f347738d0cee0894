//! Where a request comes from.

use std::net::IpAddr;

use super::fields::Fields;
use crate::budget::principal_of;
use crate::http::conn::ConnectionState;
use crate::stream::Principal;

/// The client of a request: of the connection, or of the proxy that has opened it.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Source {
    connection: Principal,
    forwarded: Option<IpAddr>,
}

impl Source {
    pub(in crate::http) fn of(state: &ConnectionState, fields: &(impl Fields + ?Sized)) -> Self {
        Self { connection: state.principal(), forwarded: state.forwarded(fields) }
    }

    /// The address that a proxy tells. `None`: the client has opened the connection itself.
    pub(in crate::http) fn forwarded(self) -> Option<IpAddr> {
        self.forwarded
    }

    /// The principal of the client's address.
    pub(in crate::http) fn principal(self) -> Principal {
        self.forwarded.map_or(self.connection, principal_of)
    }
}
