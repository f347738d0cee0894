//! [`Negotiation`]: a client on its way to a session, however its stanzas come: what it sends is answered, and its credentials are
//! verified.

use std::sync::Arc;

use minidom::Element;

use super::acks::{ResumeRequest, refusal};
use super::login::{Login, LoginStep, StreamError};
use super::managed::ManagedSession;
use super::session::ClientSession;
use super::{AdmittedClient, ClientFront};
use crate::stream::Principal;

/// A client that has not logged in yet.
pub(in crate::xmpp) struct Negotiation {
    front: Arc<ClientFront>,
    /// The principal of its network address.
    address: Principal,
    login: Login,
    admission: Option<AdmittedClient>,
}

/// What follows from an element of the client.
pub(in crate::xmpp) enum NegotiationStep {
    /// The client is answered.
    Answer(Element),
    /// The client is answered, and has logged in.
    Bound(Element, Box<ClientSession>),
    /// The client wants to resume a stream, see [`Negotiation::resume`].
    Resume(ResumeRequest),
    /// The client is answered, if there is an answer, and the stream ends.
    End(Option<Element>, StreamError),
}

impl Negotiation {
    /// Begins with a client at the network address of this principal. `is_managed`: the stream can be managed and resumed.
    pub(in crate::xmpp) fn new(front: Arc<ClientFront>, address: Principal, is_managed: bool) -> Self {
        let login = Login::new(front.domain.clone(), front.auth.users().cloned(), is_managed);
        Self { front, address, login, admission: None }
    }

    /// What the client can do now. It is told this whenever it opens the stream.
    pub(in crate::xmpp) fn features(&self) -> Element {
        self.login.features()
    }

    /// Handles an element of the client.
    pub(in crate::xmpp) fn handle(&mut self, received: Element) -> NegotiationStep {
        let step = match self.login.handle(received) {
            LoginStep::Verify(credentials) => {
                let outcome = self.front.admit(&credentials, self.address);
                self.login.verified(outcome.map(|admitted| self.admission = Some(admitted)))
            }
            step => step,
        };
        match step {
            LoginStep::Answer(answer) => NegotiationStep::Answer(answer),
            LoginStep::Bound(answer, jid) => match self.admission.take() {
                Some(admission) => {
                    let session = ClientSession::new(self.front.clone(), jid, admission, self.address);
                    NegotiationStep::Bound(answer, Box::new(session))
                }
                None => NegotiationStep::End(None, StreamError("internal-server-error")),
            },
            LoginStep::Resume(request) => NegotiationStep::Resume(request),
            LoginStep::End(answer, error) => NegotiationStep::End(answer, error),
            // It is what `verified` answers to.
            LoginStep::Verify(_) => NegotiationStep::End(None, StreamError("internal-server-error")),
        }
    }

    /// Resumes a stream. Returns its session, and the answer for the client. The error is the answer if it cannot be resumed.
    pub(super) async fn resume(
        &mut self,
        request: &ResumeRequest,
    ) -> Result<(Box<ManagedSession>, Element), Element> {
        let resumed = ManagedSession::resume(&self.front, request, &mut self.admission, self.address).await;
        resumed.map_err(|error| refusal(&error))
    }
}
