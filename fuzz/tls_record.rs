//! Fuzzes the records of a TLS client that knows the keys: the gateway reads exactly the data that was sealed before the first
//! breach, and what it answers can be opened.

use fastrand::Rng;
use tokio_rustls::rustls::ContentType;

use super::tests::{TLS12, TLS13, pair};
use super::{Received, SessionError};
use crate::fuzz::{Target, Verdict, fuzz};

/// Instead of a content type: the client uses its next keys, and the content is not sent.
const NEXT_KEYS: u8 = 0xfe;

/// Instead of a content type: a record of data whose bits are flipped at the first byte of the content.
const FORGED: u8 = 0xff;

/// An input is a list of records: a content type, a length, and as many bytes. Its first byte chooses the version.
fn seeds() -> Vec<Vec<u8>> {
    let data = [23, 3, b'a', b'b', b'c'];
    let update = [22, 5, 24, 0, 0, 1, 1, NEXT_KEYS, 0];
    vec![
        [&[0][..], &data, &[23, 0], &data].concat(),
        [&[1][..], &data, &[21, 2, 1, 100], &data].concat(),
        [&[0][..], &data, &update, &data, &update, &data, &[21, 2, 1, 0]].concat(),
        [&[0][..], &[22, 2, 24, 0, 22, 3, 0, 1, 0, NEXT_KEYS, 0], &data].concat(),
    ]
}

#[test]
fn tls_records() {
    let target = Target {
        name: "tls_record",
        seeds: seeds(),
        words: &[&[23, 1, 0], &[22, 5, 24, 0, 0, 1, 1, NEXT_KEYS, 0], &[21, 2, 1, 0], &[FORGED, 1, 3]],
        mend: |bytes, _: &mut Rng| bytes,
        inputs: 300,
        allocated_max: (1 << 20, 4096),
    };
    fuzz(&target, check);
}

fn check(input: &[u8]) -> Verdict {
    let Some((version, mut input)) = input.split_first() else { return Verdict::Refused };
    let (mut server, mut client) = pair(if version & 1 == 0 { TLS13 } else { TLS12 });
    let mut has_secrets = version & 1 == 0;
    while let Some((&[typ, size], behind)) = input.split_first_chunk() {
        let Some((content, behind)) = behind.split_at_checked(usize::from(size)) else { break };
        input = behind;
        // Type 0 is padding: the last byte of the content would be the type.
        if typ == 0 {
            continue;
        }
        if typ == NEXT_KEYS {
            has_secrets = has_secrets && client.try_next_keys();
            continue;
        }
        let is_data = typ == FORGED || ContentType::from(typ) == ContentType::ApplicationData;
        let sealed_as = if is_data { ContentType::ApplicationData } else { ContentType::from(typ) };
        let mut record = client.record(sealed_as, content);
        if typ == FORGED {
            let at = content.first().map_or(0, |at| usize::from(*at) % (record.len() - 5));
            record[5 + at] ^= 0x10;
        }
        let opened = match server.record_bytes(&record) {
            Ok(size) => {
                assert_eq!(size, Some(record.len()));
                server.open(&mut record)
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok(Received::Data(size)) => {
                assert!(typ == 23 && record[5..5 + size] == *content, "{typ} {content:?}");
            }
            Ok(Received::Control) => assert!(typ != FORGED),
            Ok(Received::Close) => {
                assert_eq!((typ, content[1]), (21, 0));
                return Verdict::Accepted;
            }
            Err(error) => {
                server.abort(&error);
                let told = client.receive(&server.take_unsent());
                assert!(matches!(
                    (error, told),
                    (SessionError::Alert(_), Ok(_)) | (SessionError::Breach(_), Err(SessionError::Alert(_)))
                ));
                return Verdict::Refused;
            }
        }
        assert!(server.unsent().len() < 200);
        client.without_data = 0;
        assert_eq!(client.receive(&server.take_unsent()).unwrap(), b"");
    }
    Verdict::Accepted
}
