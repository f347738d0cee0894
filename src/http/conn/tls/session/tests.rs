//! Sessions against a client whose records can be forged, in memory.

use tokio_rustls::rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::server::ServerConnectionData;
use tokio_rustls::rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use tokio_rustls::rustls::{AlertDescription, ContentType, SupportedCipherSuite};

use super::super::handshake::{Handshake, encode};
use super::super::tests::{SUITES, client_config, server_config};
pub(super) use super::super::tests::{TLS12, TLS13};
use super::{Received, Sealer, Session, SessionError};

pub(super) type Client = Session<ClientConnectionData>;
pub(super) type Server = Session<ServerConnectionData>;

/// The sessions of a server and a client that have shaken hands.
pub(super) fn pair(suite: SupportedCipherSuite) -> (Server, Client) {
    let mut server = Handshake::new(server_config(suite)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = UnbufferedClientConnection::new(client_config(suite), name).unwrap();
    let (mut to_client, mut is_complete) = (Vec::new(), false);
    loop {
        let mut to_server = Vec::new();
        while advance(&mut client, &mut to_client, &mut to_server) {}
        if is_complete {
            break;
        }
        server.incoming.extend_from_slice(&to_server);
        is_complete = server.advance().unwrap();
        to_client.append(&mut server.outgoing);
    }
    assert!(!client.is_handshaking() && to_client.is_empty());
    let (server, behind) = server.into_session().unwrap();
    assert!(behind.is_empty());
    let (secrets, schedule) = client.dangerous_into_kernel_connection().unwrap();
    (server, Session::new(secrets, schedule).unwrap())
}

fn advance(client: &mut UnbufferedClientConnection, incoming: &mut Vec<u8>, outgoing: &mut Vec<u8>) -> bool {
    let UnbufferedStatus { discard, state } = client.process_tls_records(incoming);
    let is_busy = match state.unwrap() {
        ConnectionState::EncodeTlsData(mut data) => encode(&mut data, outgoing).is_ok(),
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            true
        }
        ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => false,
        other => panic!("{other:?}"),
    };
    incoming.drain(..discard);
    is_busy
}

impl<Data> Session<Data> {
    pub(super) fn take_unsent(&mut self) -> Vec<u8> {
        let unsent = self.unsent().to_vec();
        self.sent(unsent.len());
        unsent
    }

    /// A record with this content.
    pub(super) fn record(&mut self, typ: ContentType, content: &[u8]) -> Vec<u8> {
        self.queue(typ, content).unwrap();
        self.take_unsent()
    }

    fn data(&mut self, content: &[u8]) -> Vec<u8> {
        self.send(content).unwrap();
        self.take_unsent()
    }

    /// Receives records, and returns their data.
    pub(super) fn receive(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, SessionError> {
        let mut data = Vec::new();
        while let Some(size) = self.record_bytes(bytes)? {
            let (record, behind) = bytes.split_at(size);
            let mut record = record.to_vec();
            if let Received::Data(size) = self.open(&mut record)? {
                data.extend_from_slice(&record[5..5 + size]);
            }
            bytes = behind;
        }
        assert!(bytes.is_empty());
        Ok(data)
    }

    /// The alert with which a record is refused.
    fn refuses(&mut self, bytes: &[u8]) -> AlertDescription {
        match self.receive(bytes) {
            Err(SessionError::Breach(alert)) => alert,
            other => panic!("{other:?}"),
        }
    }
}

/// The alert with which a new session refuses a record with this content.
fn refused(suite: SupportedCipherSuite, typ: ContentType, content: &[u8]) -> AlertDescription {
    let (mut server, mut client) = pair(suite);
    let record = client.record(typ, content);
    server.refuses(&record)
}

#[test]
fn data_goes_both_ways_in_every_cipher_suite() {
    let large: Vec<u8> = (0..1 << 14).map(|at: u32| at as u8).collect();
    for suite in SUITES {
        let (mut server, mut client) = pair(suite);
        for content in [&b"x"[..], b"two records", &large, b"and one more"] {
            assert_eq!(server.receive(&client.data(content)).unwrap(), content, "{suite:?}");
            assert_eq!(client.receive(&server.data(content)).unwrap(), content, "{suite:?}");
        }
    }
}

#[test]
fn records_keep_their_order_far_beyond_two_bytes_of_sequence_numbers() {
    let (mut server, mut client) = pair(TLS13);
    for at in 0_u32..(1 << 16) + 2 {
        assert_eq!(server.receive(&client.data(&at.to_be_bytes())).unwrap(), at.to_be_bytes());
    }
}

#[test]
fn a_record_with_any_changed_byte_is_refused() {
    for suite in SUITES {
        let (_, mut client) = pair(suite);
        let size = client.data(b"data").len();
        for at in 0..size {
            let (mut server, mut client) = pair(suite);
            let mut record = client.data(b"data");
            record[at] ^= 1;
            if at == 3 || at == 4 {
                // Another length: the record ends elsewhere.
                record.resize(5 + usize::from(u16::from_be_bytes([record[3], record[4]])).min(1 << 14), 0);
            }
            match (at, server.receive(&record)) {
                // TLS 1.3 ignores the minor version (RFC 8446, section 5.1).
                (2, Ok(data)) if suite.version() == TLS13.version() => assert_eq!(data, b"data"),
                (_, Err(SessionError::Breach(_))) => {}
                (_, other) => panic!("byte {at}: {other:?}"),
            }
        }
    }
}

#[test]
fn records_that_are_replayed_left_out_or_reordered_are_refused() {
    for suite in SUITES {
        let records = |client: &mut Client| [client.data(b"1"), client.data(b"2"), client.data(b"3")];
        for order in [[0, 0], [1, 0], [0, 2]] {
            let (mut server, mut client) = pair(suite);
            let records = records(&mut client);
            let sent = order.map(|at: usize| &*records[at]).concat();
            assert_eq!(server.refuses(&sent), AlertDescription::BadRecordMac, "{order:?}");
        }
        let (mut server, mut other) = (pair(suite).0, pair(suite).1);
        assert_eq!(server.refuses(&other.data(b"1")), AlertDescription::BadRecordMac);
    }
}

#[test]
fn empty_records_are_ignored_but_not_for_ever() {
    let (mut server, mut client) = pair(TLS13);
    for _ in 0..3 {
        for _ in 0..32 {
            assert_eq!(server.receive(&client.data(b"")).unwrap(), b"");
        }
        assert_eq!(server.receive(&client.data(b"data")).unwrap(), b"data");
    }
    let records: Vec<u8> = (0..33).flat_map(|_| client.data(b"")).collect();
    assert_eq!(server.refuses(&records), AlertDescription::UnexpectedMessage);
}

#[test]
fn headers_are_refused_before_the_record_has_arrived() {
    for (suite, size_max) in [(TLS13, (1 << 14) + 256), (TLS12, (1 << 14) + 2048)] {
        let (server, _) = pair(suite);
        let size = |typ: u8, major: u8, size: u16| {
            let [high, low] = size.to_be_bytes();
            server.record_bytes(&[typ, major, 3, high, low])
        };
        assert_eq!(size(23, 3, size_max).unwrap(), Some(5 + usize::from(size_max)));
        let alert = |outcome| match outcome {
            Err(SessionError::Breach(alert)) => alert,
            other => panic!("{other:?}"),
        };
        assert_eq!(alert(size(23, 3, size_max + 1)), AlertDescription::RecordOverflow);
        assert_eq!(alert(size(23, 2, 40)), AlertDescription::ProtocolVersion);
        for typ in [0, 20, 24, 255] {
            assert_eq!(alert(size(typ, 3, 40)), AlertDescription::UnexpectedMessage, "{typ}");
        }
        // In TLS 1.3 the types of all records are encrypted.
        for typ in [21, 22] {
            assert_eq!(size(typ, 3, 40).is_err(), suite.version() == TLS13.version(), "{typ}");
        }
        for cut in 0..5 {
            assert_eq!(server.record_bytes(&[23, 3, 3, 0, 40][..cut]).unwrap(), None);
        }
    }
}

#[test]
fn content_that_has_no_place_after_the_handshake_is_refused() {
    let unexpected = AlertDescription::UnexpectedMessage;
    for suite in [TLS13, TLS12] {
        assert_eq!(refused(suite, ContentType::ChangeCipherSpec, &[1]), unexpected);
        assert_eq!(refused(suite, ContentType::Heartbeat, &[1, 0, 0]), unexpected);
    }
    assert_eq!(refused(TLS13, ContentType::Unknown(0), b"nothing but padding follows\0\0"), unexpected);
    // A ClientHello: a renegotiation.
    assert_eq!(refused(TLS13, ContentType::Handshake, &[1, 0, 0, 0]), unexpected);
    assert_eq!(refused(TLS12, ContentType::Handshake, &[1, 0, 0, 0]), AlertDescription::HandshakeFailure);
    assert_eq!(refused(TLS13, ContentType::Handshake, &[]), unexpected);
    let oversized = vec![0; (1 << 14) + 1];
    assert_eq!(refused(TLS13, ContentType::ApplicationData, &oversized), AlertDescription::RecordOverflow);
}

#[test]
fn alerts_end_the_session_or_are_ignored() {
    let alert = |suite, content: &[u8]| {
        let (mut server, mut client) = pair(suite);
        let mut record = client.record(ContentType::Alert, content);
        server.open(&mut record)
    };
    for suite in [TLS13, TLS12] {
        assert_eq!(alert(suite, &[1, 0]).unwrap(), Received::Close);
        // RFC 8446, section 6.1: user_canceled says nothing about the session.
        assert_eq!(alert(suite, &[1, 90]).unwrap(), Received::Control);
        let fatal = alert(suite, &[2, 40]).unwrap_err();
        assert!(matches!(fatal, SessionError::Alert(AlertDescription::HandshakeFailure)), "{fatal:?}");
        for content in [&[][..], &[2], &[1, 0, 0]] {
            let malformed = alert(suite, content).unwrap_err();
            assert!(matches!(malformed, SessionError::Breach(AlertDescription::DecodeError)));
        }
    }
    assert_eq!(alert(TLS12, &[1, 100]).unwrap(), Received::Control);
    assert!(matches!(alert(TLS13, &[1, 100]), Err(SessionError::Alert(_))));
}

impl Client {
    /// Seals with the next keys from now on, without a word.
    fn next_keys(&mut self) {
        assert!(self.try_next_keys());
    }

    /// The same. False: this version of TLS knows no next keys.
    pub(super) fn try_next_keys(&mut self) -> bool {
        let Ok(secrets) = self.schedule.update_tx_secret() else { return false };
        self.sealer = Sealer::new(self.schedule.negotiated_cipher_suite(), secrets).unwrap();
        true
    }
}

#[test]
fn a_client_that_changes_its_keys_is_understood() {
    for suite in [TLS13, SUITES[1], SUITES[2]] {
        let (mut server, mut client) = pair(suite);
        for request in [0, 1, 1, 0, 1] {
            let mut sent = client.record(ContentType::Handshake, &[24, 0, 0, 1, request]);
            client.next_keys();
            sent.extend(client.data(b"with the next keys"));
            assert_eq!(server.receive(&sent).unwrap(), b"with the next keys", "{suite:?}");
            // The server changes its keys only if it is asked to.
            assert_eq!(!server.unsent().is_empty(), request == 1);
            let answer = server.take_unsent();
            assert_eq!(client.receive(&answer).unwrap(), b"");
            assert_eq!(client.receive(&server.data(b"answer")).unwrap(), b"answer");
        }
    }
}

#[test]
fn requests_for_new_keys_while_the_answer_is_unsent_get_one_answer() {
    let (mut server, mut client) = pair(TLS13);
    server.send(b"unsent data").unwrap();
    for _ in 0..20 {
        let record = client.record(ContentType::Handshake, &[24, 0, 0, 1, 1]);
        client.next_keys();
        assert_eq!(server.receive(&record).unwrap(), b"");
    }
    let unsent = server.take_unsent();
    assert!(unsent.len() < 100, "{} bytes", unsent.len());
    assert_eq!(client.receive(&unsent).unwrap(), b"unsent data");
    assert_eq!(client.receive(&server.data(b"with the next keys")).unwrap(), b"with the next keys");
}

#[test]
fn keys_that_have_sealed_all_they_may_are_changed_before_the_next_record() {
    let (mut server, mut client) = pair(TLS13);
    (server.sealer.sequence, client.opener.sequence) = ((1 << 24) - 1, (1 << 24) - 1);
    assert_eq!(client.receive(&server.data(b"last")).unwrap(), b"last");
    let record = server.data(b"first");
    assert!(record.len() > 2 * (5 + 16), "a key update comes first");
    assert_eq!((client.receive(&record).unwrap(), server.sealer.sequence), (b"first".to_vec(), 1));
    // Without key updates, the session is at its end.
    let (mut server, _) = pair(TLS12);
    server.sealer.sequence = 1 << 24;
    assert!(server.send(b"too much").is_err());
}

#[test]
fn a_key_update_may_be_cut_but_nothing_may_come_between_or_behind() {
    let update = [24, 0, 0, 1, 0];
    for cut in 1..update.len() {
        let (mut server, mut client) = pair(TLS13);
        let (begin, end) = update.split_at(cut);
        let sent = [begin, end].map(|part| client.record(ContentType::Handshake, part)).concat();
        client.next_keys();
        let data = client.data(b"data");
        assert_eq!(server.receive(&[sent, data].concat()).unwrap(), b"data", "{cut}");

        let (mut server, mut client) = pair(TLS13);
        let sent = [client.record(ContentType::Handshake, begin), client.data(b"data")].concat();
        assert_eq!(server.refuses(&sent), AlertDescription::UnexpectedMessage, "{cut}");
    }
    let refused = |content: &[u8]| refused(TLS13, ContentType::Handshake, content);
    assert_eq!(refused(&[24, 0, 0, 1, 0, 24, 0, 0, 1, 0]), AlertDescription::UnexpectedMessage);
    assert_eq!(refused(&[24, 0, 0, 2, 0, 0]), AlertDescription::UnexpectedMessage);
    assert_eq!(refused(&[24, 0, 0, 1, 2]), AlertDescription::IllegalParameter);
}

#[test]
fn a_client_that_only_changes_its_keys_is_cut_off() {
    let (mut server, mut client) = pair(TLS13);
    let mut update = || {
        let record = client.record(ContentType::Handshake, &[24, 0, 0, 1, 0]);
        client.next_keys();
        record
    };
    for _ in 0..32 {
        assert_eq!(server.receive(&update()).unwrap(), b"");
    }
    assert_eq!(server.refuses(&update()), AlertDescription::UnexpectedMessage);
}

#[test]
fn the_end_of_a_session_is_said_once_and_a_breach_is_told() {
    for suite in [TLS13, TLS12] {
        let (mut server, mut client) = pair(suite);
        server.close().unwrap();
        server.close().unwrap();
        let mut record = server.take_unsent();
        assert_eq!(client.open(&mut record).unwrap(), Received::Close);
        server.abort(&SessionError::Breach(AlertDescription::BadRecordMac));
        let told = client.receive(&server.take_unsent()).unwrap_err();
        assert!(matches!(told, SessionError::Alert(AlertDescription::BadRecordMac)), "{told:?}");
        // An alert is not answered.
        server.abort(&SessionError::Alert(AlertDescription::HandshakeFailure));
        assert!(server.unsent().is_empty());
    }
}
