//! Fuzzes MQTT packets. Each packet is decoded or refused; none causes a panic or an allocation larger than its own bytes
//! justify. A decoded packet that is encoded again decodes to the same packet.

use bytes::BytesMut;
use fastrand::Rng;
use mqtt_protocol_core::mqtt::packet::{MessageExpiryInterval, Qos, TopicAlias, UserProperty};
use mqtt_protocol_core::mqtt::packet::{Property, SubEntry, SubOpts, v3_1_1, v5_0};

use super::*;
use crate::fuzz::{Target, Verdict, fuzz};

const PACKET_BYTES_MAX: usize = 1024;

/// Sizes of payloads around the limits where the encoded length takes one byte more.
const LENGTHS: [usize; 6] = [100, 127, 128, 16_300, 16_383, 16_384];

/// The first byte of an input selects the version that the client has negotiated; the packets follow.
const VERSIONS: [Option<Version>; 3] = [None, Some(Version::V3), Some(Version::V5)];

#[test]
fn mqtt_packets() {
    let target = Target {
        name: "mqtt_packet",
        seeds: seeds(),
        words: &[
            b"\0\x04MQTT",
            b"MQIsdp",
            b"\0\x01#",
            b"\0\x05a/+/c",
            b"$share/",
            &[0xff; 4],
            &[0x80; 4],
            &[0, 0],
        ],
        mend,
        inputs: 60_000,
        allocated_max: (128 * 1024, 200),
    };
    fuzz(&target, |input| {
        let Some((version, bytes)) = input.split_first() else { return Verdict::Refused };
        let version = VERSIONS[usize::from(*version) % VERSIONS.len()];
        let mut frames = PacketReader::default();
        frames.put(bytes);
        let (mut understood, mut packets) = (0, 0);
        while let Ok(Some(frame)) = frames.next(PACKET_BYTES_MAX) {
            packets += 1;
            assert!(packets <= bytes.len(), "more packets than bytes");
            let again = Packet { first: frame.first, body: frame.body.clone() };
            match (decode(frame, version), version) {
                (Ok(packet), Some(version)) => {
                    understood += 1;
                    survives_encoding(&packet, version);
                    if let Incoming::Publish(mut publish) = packet
                        && understood == 1
                        && bytes.len() % 32 == 0
                    {
                        publish.payload = vec![7; LENGTHS[bytes.len() / 32 % LENGTHS.len()]].into();
                        survives_encoding(&Incoming::Publish(publish), version);
                    }
                }
                (Ok(_), None) => understood += 1,
                (Err(breach), _) => assert_eq!(decode(again, version).err(), Some(breach)),
            }
        }
        assert!(frames.capacity() <= 2 * bytes.len() + 64, "{} for {}", frames.capacity(), bytes.len());
        if understood > 0 { Verdict::Accepted } else { Verdict::Refused }
    });
}

/// Usually corrects the packet length; otherwise few inputs would pass the first check.
fn mend(mut bytes: Vec<u8>, random: &mut Rng) -> Vec<u8> {
    if bytes.len() > 3 && bytes.len() < 130 && random.u8(..4) > 0 {
        bytes[2] = (bytes.len() - 3) as u8;
    }
    bytes
}

/// Encodes and decodes a packet; publishes and acknowledgements have the same form in both directions.
fn survives_encoding(packet: &Incoming, version: Version) {
    let outgoing = match packet {
        Incoming::Publish(publish) if publish.topic.is_empty() => return,
        Incoming::Publish(publish) => OutgoingPacket::Publish(Delivery {
            topic: &publish.topic,
            alias: publish.alias.map(|alias| (alias, false)),
            payload: &publish.payload,
            id: publish.id,
            qos: publish.qos,
            duplicate: false,
            retain: publish.retain,
            properties: &publish.properties,
            identifiers: &[],
        }),
        // Reason codes of clients are not distinguished.
        Incoming::Ack(ack) => OutgoingPacket::Ack(Ack { reason: Reason::Success, ..*ack }),
        _ => return,
    };
    let mut bytes = BytesMut::new();
    assert!(encode(&outgoing, version, usize::MAX, &mut bytes));
    assert!(!encode(&outgoing, version, bytes.len() - 1, &mut BytesMut::new()), "larger than it may be");
    assert!(encode(&outgoing, version, bytes.len(), &mut BytesMut::new()), "no larger than it may be");
    let mut frames = PacketReader::default();
    frames.put(&bytes);
    let frame = frames.next(usize::MAX).unwrap().expect("a whole packet");
    let read = decode(frame, Some(version)).unwrap();
    match (packet, read) {
        (Incoming::Ack(sent), Incoming::Ack(read)) => {
            assert_eq!(read, Ack { reason: Reason::Success, ..*sent });
        }
        (Incoming::Publish(sent), Incoming::Publish(read)) => {
            assert!(read.payload == sent.payload, "{read:?}, not {sent:?}");
            assert_eq!((&read.topic, &read.properties), (&sent.topic, &sent.properties));
            assert_eq!((read.id, read.qos, read.retain), (sent.id, sent.qos, sent.retain));
            assert_eq!(read.alias, sent.alias.filter(|_| version == Version::V5));
        }
        (sent, read) => panic!("{read:?}, not {sent:?}"),
    }
    assert!(frames.next(usize::MAX).unwrap().is_none());
}

/// Returns one packet of each kind that clients send, in both versions.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<(Option<Version>, Vec<u8>)> = Vec::new();
    let properties = || -> Vec<Property> {
        vec![
            MessageExpiryInterval::new(60).unwrap().into(),
            TopicAlias::new(3).unwrap().into(),
            UserProperty::new("key", "value").unwrap().into(),
        ]
    };
    let entries = || ["a/+/c", "#"].map(|filter| SubEntry::new(filter, SubOpts::new()).unwrap());
    let connect = v5_0::Connect::builder().client_id("client").unwrap().keep_alive(60);
    let connect = connect.will_message("will", b"gone", Qos::AtLeastOnce, true).unwrap().build().unwrap();
    seeds.push((None, connect.to_continuous_buffer()));
    let connect = v3_1_1::Connect::builder().client_id("client").unwrap().clean_session(true);
    let connect = connect.will_message("will", b"gone", Qos::ExactlyOnce, false).unwrap().build().unwrap();
    seeds.push((None, connect.to_continuous_buffer()));
    let v5: [Vec<u8>; 7] = [
        v5_0::Publish::builder()
            .topic_name("a/b")
            .unwrap()
            .qos(Qos::ExactlyOnce)
            .packet_id(7u16)
            .props(properties())
            .payload("text")
            .build()
            .unwrap()
            .to_continuous_buffer(),
        v5_0::Puback::builder().packet_id(7).build().unwrap().to_continuous_buffer(),
        v5_0::Pubrec::builder().packet_id(7).build().unwrap().to_continuous_buffer(),
        v5_0::Pubrel::builder().packet_id(7).build().unwrap().to_continuous_buffer(),
        v5_0::Subscribe::builder()
            .packet_id(7)
            .entries(entries().to_vec())
            .build()
            .unwrap()
            .to_continuous_buffer(),
        v5_0::Unsubscribe::builder()
            .packet_id(7)
            .entries(["a/+"])
            .unwrap()
            .build()
            .unwrap()
            .to_continuous_buffer(),
        v5_0::Disconnect::builder().build().unwrap().to_continuous_buffer(),
    ];
    seeds.extend(v5.map(|bytes| (Some(Version::V5), bytes)));
    let v3: [Vec<u8>; 5] = [
        v3_1_1::Publish::builder()
            .topic_name("a/b")
            .unwrap()
            .qos(Qos::AtLeastOnce)
            .packet_id(7u16)
            .payload("text")
            .build()
            .unwrap()
            .to_continuous_buffer(),
        v3_1_1::Pubrec::builder().packet_id(7).build().unwrap().to_continuous_buffer(),
        v3_1_1::Subscribe::builder()
            .packet_id(7)
            .entries(entries().to_vec())
            .build()
            .unwrap()
            .to_continuous_buffer(),
        v3_1_1::Unsubscribe::builder()
            .packet_id(7)
            .entries(["a/+"])
            .unwrap()
            .build()
            .unwrap()
            .to_continuous_buffer(),
        vec![0xc0, 0],
    ];
    seeds.extend(v3.map(|bytes| (Some(Version::V3), bytes)));
    let with_version = |(version, packet): (Option<Version>, Vec<u8>)| {
        let number = VERSIONS.iter().position(|known| *known == version).unwrap() as u8;
        [&[number][..], &packet].concat()
    };
    seeds.into_iter().map(with_version).collect()
}
