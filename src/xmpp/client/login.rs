//! [`Login`]: negotiates the stream of a client from its first element to its address (RFC 6120, sections 4, 6 and 7). Without IO and
//! clock.

use std::sync::Arc;

use minidom::Element;

use super::acks::{ResumeRequest, STREAM_MANAGEMENT, refusal};
use super::sasl::{Credentials, Mechanism, Proof, SASL, SaslError, decoded, invalid_token, saying, user};
use crate::auth::{ScramExchange, Users};
use crate::xmpp::jid::Jid;
use crate::xmpp::stanza::{Request, Stanza, StanzaError, answer};
use crate::xmpp::xml::{STREAMS, element, stream_element};

const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
/// Older clients ask for a session after they have bound a resource (RFC 3921, section 3).
pub(super) const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";
/// Client state indication (XEP-0352 1.0.0).
pub(super) const CLIENT_STATE: &str = "urn:xmpp:csi:0";
/// The namespace of the conditions of stream errors (RFC 6120, section 4.9.3).
const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";

/// Attempts to authenticate, after which the stream ends.
const ATTEMPTS_MAX: usize = 3;

/// Why the gateway ends a stream (RFC 6120, section 4.9.3): the name of the condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::xmpp) struct StreamError(pub(in crate::xmpp) &'static str);

/// What follows from an element of the client.
#[derive(PartialEq)]
pub(super) enum LoginStep {
    /// The client is answered.
    Answer(Element),
    /// The credentials are to be verified. [`Login::verified`] takes the outcome.
    Verify(Credentials),
    /// The client is answered, and has logged in with this address.
    Bound(Element, Jid),
    /// The client wants to resume a stream. If it cannot be resumed, the client may bind a resource.
    Resume(ResumeRequest),
    /// The client is answered, if there is an answer, and the stream ends.
    End(Option<Element>, StreamError),
}

/// The negotiation of a stream.
pub(super) struct Login {
    domain: Jid,
    /// Those who have passwords.
    users: Option<Arc<Users>>,
    /// Whether the stream can be managed and resumed (XEP-0198), and the client may say that it is inactive (XEP-0352).
    is_managed: bool,
    state: State,
    attempts_left: usize,
}

enum State {
    Unauthenticated,
    /// The client has to send the first message of a mechanism.
    Challenged(Mechanism),
    /// The client has to send the last message of SCRAM.
    Proving(Box<ScramExchange>),
    /// The credentials of a user are being verified. With success the client is told this.
    Verifying {
        user: Jid,
        answer: String,
        is_bearer: bool,
    },
    /// The client has to answer to the refusal of its token (RFC 7628, section 3.2.3).
    Refused,
    /// The client has to bind a resource.
    Authenticated(Jid),
}

impl Login {
    /// A stream with `domain`. `users` are those who have passwords.
    pub(super) fn new(domain: Jid, users: Option<Arc<Users>>, is_managed: bool) -> Self {
        Self { domain, users, is_managed, state: State::Unauthenticated, attempts_left: ATTEMPTS_MAX }
    }

    /// What the client can do now. It is told this whenever it opens the stream.
    pub(super) fn features(&self) -> Element {
        let features = stream_element("features");
        match self.state {
            State::Authenticated(_) => {
                let session = element("session", SESSION).append(element("optional", SESSION).build());
                let managed = [("sm", STREAM_MANAGEMENT), ("csi", CLIENT_STATE)];
                let managed = managed.map(|(name, namespace)| element(name, namespace).build());
                let managed = managed.into_iter().filter(|_| self.is_managed);
                let features = features.append(element("bind", BIND).build()).append_all(managed);
                features.append(session.build()).build()
            }
            _ => features.append(Mechanism::offered(self.users.as_deref())).build(),
        }
    }

    /// Handles an element of the client.
    pub(super) fn handle(&mut self, received: Element) -> LoginStep {
        if received.ns() == SASL {
            return self.handle_sasl(&received);
        }
        match &self.state {
            State::Authenticated(_) if self.is_managed && received.has_ns(STREAM_MANAGEMENT) => {
                resume(&received)
            }
            State::Authenticated(user) => bind(user, received),
            _ if received.ns() == STREAMS => LoginStep::End(None, StreamError("unsupported-stanza-type")),
            _ => LoginStep::End(None, StreamError("not-authorized")),
        }
    }

    fn handle_sasl(&mut self, received: &Element) -> LoginStep {
        match (received.name(), &self.state) {
            (_, State::Authenticated(_) | State::Verifying { .. }) => {
                LoginStep::End(None, StreamError("policy-violation"))
            }
            // Also instead of the answer to the refusal: each refused token counts as an attempt.
            ("auth" | "response", State::Refused) => self.fail(SaslError::NotAuthorized),
            ("auth", _) => {
                let name = received.attr("mechanism").unwrap_or_default();
                let mechanism = Mechanism::parse(name, self.users.as_deref());
                match (mechanism, received.text()) {
                    (Err(error), _) => self.fail(error),
                    (Ok(mechanism), message) if message.trim().is_empty() => {
                        self.state = State::Challenged(mechanism);
                        LoginStep::Answer(element("challenge", SASL).build())
                    }
                    (Ok(mechanism), message) => self.take(mechanism, &message),
                }
            }
            ("response", State::Challenged(mechanism)) => {
                let (mechanism, message) = (*mechanism, received.text());
                self.take(mechanism, &message)
            }
            ("response", State::Proving(_)) => self.take_proof(&received.text()),
            ("abort", _) => self.fail(SaslError::Aborted),
            _ => self.fail(SaslError::Malformed),
        }
    }

    /// Takes the first message of a mechanism.
    fn take(&mut self, mechanism: Mechanism, message: &str) -> LoginStep {
        let read = decoded(message).and_then(|message| match (mechanism, &self.users) {
            (Mechanism::Scram(hash), Some(users)) => {
                let (exchange, answer) = users.begin(hash, &message)?;
                self.state = State::Proving(Box::new(exchange));
                Ok(LoginStep::Answer(saying("challenge", &answer)))
            }
            _ => {
                let credentials = mechanism.credentials(&message, &self.domain)?;
                let is_bearer = mechanism == Mechanism::OAuthBearer;
                let user = credentials.user.clone();
                self.state = State::Verifying { user, answer: String::new(), is_bearer };
                Ok(LoginStep::Verify(credentials))
            }
        });
        read.unwrap_or_else(|error| self.fail(error))
    }

    /// Takes the last message of SCRAM.
    fn take_proof(&mut self, message: &str) -> LoginStep {
        let State::Proving(exchange) = std::mem::replace(&mut self.state, State::Unauthenticated) else {
            return self.fail(SaslError::Malformed);
        };
        let read = decoded(message).and_then(|message| {
            let outcome = exchange.finish(&message)?;
            let user = user(&outcome.name, &self.domain)?;
            let answer = outcome.answer.clone().unwrap_or_default();
            self.state = State::Verifying { user: user.clone(), answer, is_bearer: false };
            Ok(LoginStep::Verify(Credentials { user, proof: Proof::Password(outcome) }))
        });
        read.unwrap_or_else(|error| self.fail(error))
    }

    /// Takes the outcome of [`LoginStep::Verify`].
    pub(super) fn verified(&mut self, outcome: Result<(), SaslError>) -> LoginStep {
        let state = std::mem::replace(&mut self.state, State::Unauthenticated);
        match (state, outcome) {
            (State::Verifying { user, answer, .. }, Ok(())) => {
                self.state = State::Authenticated(user);
                LoginStep::Answer(saying("success", &answer))
            }
            (State::Verifying { is_bearer: true, .. }, Err(SaslError::NotAuthorized)) => {
                self.state = State::Refused;
                LoginStep::Answer(invalid_token())
            }
            (_, outcome) => self.fail(outcome.err().unwrap_or(SaslError::Malformed)),
        }
    }

    fn fail(&mut self, error: SaslError) -> LoginStep {
        self.state = State::Unauthenticated;
        self.attempts_left -= 1;
        let failure = error.to_element();
        match self.attempts_left {
            0 => LoginStep::End(Some(failure), StreamError("policy-violation")),
            _ => LoginStep::Answer(failure),
        }
    }
}

/// Resumes a stream (XEP-0198 1.6.3, section 5). Nothing else of stream management is possible before a resource is bound (section 3).
fn resume(received: &Element) -> LoginStep {
    match (received.name(), ResumeRequest::read(received)) {
        ("resume", Some(request)) => LoginStep::Resume(request),
        ("resume", None) => LoginStep::Answer(refusal(&StanzaError::bad_request())),
        _ => LoginStep::Answer(refusal(&StanzaError::unexpected_request())),
    }
}

/// Binds the resource that the client wants, or a random one (RFC 6120, section 7).
fn bind(user: &Jid, received: Element) -> LoginStep {
    let refuse = |id: &str, error| LoginStep::Answer(answer(id, None, user, Err(error)));
    let Ok(Stanza::Request(Request { id, is_set: true, payload })) = Stanza::read(received) else {
        return LoginStep::End(None, StreamError("not-authorized"));
    };
    if !payload.is("bind", BIND) {
        return refuse(&id, StanzaError::forbidden());
    }
    let wanted = payload.get_child("resource", BIND).map(Element::text).filter(|text| !text.is_empty());
    let resource = wanted.unwrap_or_else(|| format!("{:016x}", fastrand::u64(..)));
    match Jid::parse(&format!("{user}/{resource}")) {
        Err(_) => refuse(&id, StanzaError::bad_request()),
        Ok(jid) => {
            let said = element("jid", BIND).append(jid.as_str()).build();
            let bound = element("bind", BIND).append(said).build();
            LoginStep::Bound(answer(&id, None, &jid, Ok(Some(bound))), jid)
        }
    }
}

impl StreamError {
    pub(in crate::xmpp) fn to_element(self) -> Element {
        let Self(condition) = self;
        stream_element("error").append(element(condition, STREAM_ERRORS).build()).build()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::xmpp::xml::{CLIENT, parse_document, to_bytes};

    fn login() -> Login {
        Login::new(Jid::parse("b.example").unwrap(), None, true)
    }

    fn auth(mechanism: &str, message: &str) -> Element {
        let text =
            format!("<auth xmlns='{SASL}' mechanism='{mechanism}'>{}</auth>", STANDARD.encode(message));
        parse_document(text.as_bytes(), 1000).unwrap()
    }

    fn stanza(text: &str) -> Element {
        parse_document(text.replacen(' ', &format!(" xmlns='{CLIENT}' "), 1).as_bytes(), 4096).unwrap()
    }

    fn condition(step: &LoginStep) -> String {
        let LoginStep::Answer(element) = step else { panic!() };
        element.children().next().map(|child| child.name().to_owned()).unwrap_or_default()
    }

    fn authenticated() -> Login {
        let mut login = login();
        assert!(matches!(login.handle(auth("PLAIN", "\0anna\0token")), LoginStep::Verify(_)));
        assert!(matches!(login.verified(Ok(())), LoginStep::Answer(success) if success.name() == "success"));
        login
    }

    #[test]
    fn a_client_authenticates_and_binds() {
        let mut login = authenticated();
        let features = String::from_utf8(to_bytes(&login.features())).unwrap();
        assert!(features.starts_with("<stream:features ") && features.contains(BIND), "{features}");
        let step = login.handle(stanza(
            "<iq id='1' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>x y</resource></bind></iq>",
        ));
        assert!(matches!(step, LoginStep::Bound(_, jid) if jid.as_str() == "anna@b.example/x y"));
        let step = authenticated()
            .handle(stanza("<iq id='1' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"));
        assert!(matches!(step, LoginStep::Bound(_, jid) if jid.as_str().starts_with("anna@b.example/")));
    }

    #[test]
    fn three_failures_end_the_stream() {
        let mut login = login();
        assert_eq!(condition(&login.handle(auth("SCRAM-SHA-1", "x"))), "invalid-mechanism");
        login.handle(auth("PLAIN", "\0anna\0wrong"));
        assert_eq!(condition(&login.verified(Err(SaslError::NotAuthorized))), "not-authorized");
        login.handle(auth("PLAIN", "\0anna\0wrong"));
        let step = login.verified(Err(SaslError::NotAuthorized));
        assert!(matches!(step, LoginStep::End(Some(_), StreamError("policy-violation"))));
    }

    #[test]
    fn a_first_message_may_come_after_a_challenge_and_a_refused_token_is_answered_twice() {
        let mut login = login();
        let empty = parse_document(format!("<auth xmlns='{SASL}' mechanism='OAUTHBEARER'/>").as_bytes(), 999);
        assert_eq!(condition(&login.handle(empty.unwrap())), "");
        let response = |message: &str| {
            let text = format!("<response xmlns='{SASL}'>{}</response>", STANDARD.encode(message));
            parse_document(text.as_bytes(), 999).unwrap()
        };
        let step = login.handle(response("n,,\u{1}auth=Bearer wrong\u{1}\u{1}"));
        assert!(matches!(step, LoginStep::Verify(_)));
        let step = login.verified(Err(SaslError::NotAuthorized));
        assert!(matches!(step, LoginStep::Answer(challenge) if challenge.name() == "challenge"));
        assert_eq!(condition(&login.handle(response("\u{1}"))), "not-authorized");
    }

    #[test]
    fn nothing_else_is_served_before_the_client_is_bound() {
        let ping = "<iq id='1' type='get' to='b.example'><ping xmlns='urn:xmpp:ping'/></iq>";
        let not_authorized = |step| matches!(step, LoginStep::End(None, StreamError("not-authorized")));
        assert!(not_authorized(login().handle(stanza(ping))));
        assert!(not_authorized(authenticated().handle(stanza(ping))));
        assert!(not_authorized(authenticated().handle(stanza("<message to='a@b'/>"))));
        let again = authenticated().handle(auth("PLAIN", "\0eve\0token"));
        assert!(matches!(again, LoginStep::End(None, StreamError("policy-violation"))));
    }
}
