//! The rows and columns of the table, and what is expected in each cell.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Front {
    ShortPoll,
    HeldPoll,
    Sse,
    Ndjson,
    WebSocket,
    ManyStreams,
    Append,
    Create,
    Delete,
    Mqtt3Subscribe,
    Mqtt5Subscribe,
    Mqtt5Publish,
    /// MQTT over a WebSocket of a page that has the token in its cookie.
    MqttWithCookie,
    Ticket,
    Device,
    Subscription,
    Admin,
}

pub(super) const FRONTS: [Front; 17] = {
    use Front::*;
    [
        ShortPoll,
        HeldPoll,
        Sse,
        Ndjson,
        WebSocket,
        ManyStreams,
        Append,
        Create,
        Delete,
        Mqtt3Subscribe,
        Mqtt5Subscribe,
        Mqtt5Publish,
        MqttWithCookie,
        Ticket,
        Device,
        Subscription,
        Admin,
    ]
};

impl Front {
    /// Whether clients connect to the listener for MQTT.
    pub(super) fn is_mqtt(self) -> bool {
        matches!(self, Self::Mqtt3Subscribe | Self::Mqtt5Subscribe | Self::Mqtt5Publish)
    }

    pub(super) fn changes_streams(self) -> bool {
        matches!(self, Self::Append | Self::Create | Self::Delete | Self::Mqtt5Publish)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Credentials {
    Granted,
    /// Signed with another key that is still in use.
    RotatedKey,
    /// A valid token, which grants another stream.
    NotGranted,
    /// A valid token with the same rights in another tenant, in which streams of these names do not exist.
    OtherTenant,
    None,
    Malformed,
    Expired,
    NotYetValid,
    TooLongLife,
    WrongAudience,
    WrongIssuer,
    /// Signed with HMAC, and the public key as the secret.
    WrongAlgorithm,
    Unsigned,
    /// The claims of one token with the signature of another.
    Tampered,
    RemovedKey,
    /// A certificate with the rights of [`Granted`](Self::Granted).
    Certificate,
    /// A certificate that grants another stream.
    CertificateNotGranted,
    /// A certificate with the same rights in a tenant that is neither that of the token nor the default one.
    CertificateOfOtherTenant,
    /// A certificate that no rule names.
    UnnamedCertificate,
    ExpiredCertificate,
    /// A certificate that its authority has revoked.
    RevokedCertificate,
    /// A certificate of an authority that the gateway does not trust.
    UntrustedCertificate,
    /// A valid token, which grants another stream, and a certificate with all rights: the token counts.
    NotGrantedBesideCertificate,
    /// An invalid token and a certificate with all rights.
    MalformedBesideCertificate,
}

pub(super) const CREDENTIALS: [Credentials; 24] = [
    Credentials::Granted,
    Credentials::RotatedKey,
    Credentials::NotGranted,
    Credentials::OtherTenant,
    Credentials::None,
    Credentials::Malformed,
    Credentials::Expired,
    Credentials::NotYetValid,
    Credentials::TooLongLife,
    Credentials::WrongAudience,
    Credentials::WrongIssuer,
    Credentials::WrongAlgorithm,
    Credentials::Unsigned,
    Credentials::Tampered,
    Credentials::RemovedKey,
    Credentials::Certificate,
    Credentials::CertificateNotGranted,
    Credentials::CertificateOfOtherTenant,
    Credentials::UnnamedCertificate,
    Credentials::ExpiredCertificate,
    Credentials::RevokedCertificate,
    Credentials::UntrustedCertificate,
    Credentials::NotGrantedBesideCertificate,
    Credentials::MalformedBesideCertificate,
];

impl Credentials {
    /// The file with the certificate. `None`: the client has none.
    pub(super) fn certificate(self) -> Option<&'static str> {
        Some(match self {
            Self::Certificate | Self::NotGrantedBesideCertificate | Self::MalformedBesideCertificate => {
                "granted.pem"
            }
            Self::CertificateNotGranted => "not-granted.pem",
            Self::CertificateOfOtherTenant => "other-tenant.pem",
            Self::UnnamedCertificate => "unnamed.pem",
            Self::ExpiredCertificate => "expired.pem",
            Self::RevokedCertificate => "revoked.pem",
            Self::UntrustedCertificate => "stranger.pem",
            _ => return None,
        })
    }

    /// The kind of token with the same outcomes as a certificate; other kinds are unchanged.
    pub(super) fn as_token(self) -> Self {
        match self {
            Self::Certificate => Self::Granted,
            Self::CertificateNotGranted | Self::NotGrantedBesideCertificate => Self::NotGranted,
            Self::CertificateOfOtherTenant => Self::OtherTenant,
            Self::UnnamedCertificate => Self::None,
            Self::MalformedBesideCertificate => Self::Malformed,
            other => other,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Allowed,
    Unauthorized,
    Forbidden,
    /// The stream does not exist.
    Missing,
    /// The gateway ends the TLS handshake.
    Untrusted,
}

pub(super) fn expected(front: Front, credentials: Credentials) -> Outcome {
    match (front, credentials.as_token()) {
        // The admin listener is for operators, on a loopback address without TLS.
        (Front::Admin, _) | (_, Credentials::Granted | Credentials::RotatedKey) => Outcome::Allowed,
        // Clients may create, delete and subscribe to streams of their own tenant.
        (
            Front::Create
            | Front::Delete
            | Front::Ticket
            | Front::Device
            | Front::Subscription
            | Front::Mqtt3Subscribe
            | Front::Mqtt5Subscribe
            | Front::Mqtt5Publish
            | Front::MqttWithCookie,
            Credentials::OtherTenant,
        ) => Outcome::Allowed,
        (_, Credentials::OtherTenant) => Outcome::Missing,
        // Which streams a ticket is for is checked when it is used.
        (Front::Ticket, Credentials::NotGranted) => Outcome::Allowed,
        (_, Credentials::NotGranted) => Outcome::Forbidden,
        (
            _,
            Credentials::ExpiredCertificate
            | Credentials::RevokedCertificate
            | Credentials::UntrustedCertificate,
        ) => Outcome::Untrusted,
        _ => Outcome::Unauthorized,
    }
}
