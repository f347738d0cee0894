//! Reason codes of MQTT 5 (section 2.4), and their mapping to return codes of 3.1.1.

use mqtt_protocol_core::mqtt::result_code::MqttError;

/// A reason code that the gateway sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::mqtt) enum Reason {
    /// Success. In a SUBACK the granted QoS is sent instead.
    Success = 0x00,
    NoSubscriptionExisted = 0x11,
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecificError = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerShuttingDown = 0x8b,
    BadAuthenticationMethod = 0x8c,
    KeepAliveTimeout = 0x8d,
    SessionTakenOver = 0x8e,
    TopicFilterInvalid = 0x8f,
    TopicNameInvalid = 0x90,
    PacketIdentifierNotFound = 0x92,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    QuotaExceeded = 0x97,
    PayloadFormatInvalid = 0x99,
    ConnectionRateExceeded = 0x9f,
    MaximumConnectTime = 0xa0,
}

impl Reason {
    /// Returns the reason code of MQTT 5.
    pub(in crate::mqtt) fn code(self) -> u8 {
        self as u8
    }

    /// Whether the code reports a failure.
    pub(in crate::mqtt) fn is_failure(self) -> bool {
        self.code() >= 0x80
    }

    /// Returns the return code in a CONNACK of MQTT 3.1.1, section 3.2.2.3. `None`: there is none for this
    /// reason, so no CONNACK is sent.
    pub(in crate::mqtt) fn connect_return_code(self) -> Option<u8> {
        match self {
            Self::Success => Some(0),
            Self::UnsupportedProtocolVersion => Some(1),
            Self::ClientIdentifierNotValid => Some(2),
            Self::ServerUnavailable
            | Self::QuotaExceeded
            | Self::ConnectionRateExceeded
            | Self::UnspecifiedError => Some(3),
            Self::BadUserNameOrPassword => Some(4),
            Self::NotAuthorized => Some(5),
            _ => None,
        }
    }
}

/// Maps the errors of the library that a packet from a client can cause.
impl From<MqttError> for Reason {
    fn from(error: MqttError) -> Self {
        match error {
            MqttError::ProtocolError => Self::ProtocolError,
            MqttError::UnsupportedProtocolVersion => Self::UnsupportedProtocolVersion,
            MqttError::ClientIdentifierNotValid => Self::ClientIdentifierNotValid,
            MqttError::TopicFilterInvalid => Self::TopicFilterInvalid,
            MqttError::TopicNameInvalid => Self::TopicNameInvalid,
            MqttError::TopicAliasInvalid => Self::TopicAliasInvalid,
            MqttError::PacketTooLarge => Self::PacketTooLarge,
            _ => Self::MalformedPacket,
        }
    }
}
