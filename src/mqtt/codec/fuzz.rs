//! Packets as an attacker would send them: valid ones with bits flipped, bytes cut, doubled, spliced and lengths
//! changed. Each is refused or understood; none panics, and none makes the gateway set aside what it did not send.

use mqtt_protocol_core::mqtt::packet::{MessageExpiryInterval, Qos, TopicAlias, UserProperty};
use mqtt_protocol_core::mqtt::packet::{Property, SubEntry, SubOpts, v3_1_1, v5_0};

use super::*;

const PACKETS: usize = 1_000_000;
const PACKET_BYTES_MAX: usize = 1024;

#[test]
fn mutated_packets_are_refused_or_understood() {
    let seeds = seeds();
    let mut random = fastrand::Rng::with_seed(7);
    let (mut understood, mut refused, mut incomplete) = (0, 0, 0);
    for _ in 0..PACKETS {
        let (version, seed) = &seeds[random.usize(..seeds.len())];
        let mutated = mutated(seed, &seeds, &mut random);
        let mut frames = Frames::default();
        frames.put(&mutated);
        let mut left = mutated.len() + 1;
        loop {
            match frames.next(PACKET_BYTES_MAX) {
                Ok(None) => {
                    incomplete += 1;
                    break;
                }
                Ok(Some(frame)) => {
                    assert!(left > 0, "as many packets as bytes at the most");
                    left -= 1;
                    match decode(frame, *version) {
                        Ok(_) => understood += 1,
                        Err(_) => refused += 1,
                    }
                }
                Err(_) => {
                    refused += 1;
                    break;
                }
            }
        }
        assert!(frames.capacity() <= 2 * mutated.len() + 64, "{} for {}", frames.capacity(), mutated.len());
    }
    println!("{PACKETS} packets: {understood} understood, {refused} refused, {incomplete} not whole");
    // Where all are refused, the mutations are too coarse to test anything behind the first check.
    assert!(understood > PACKETS / 20 && refused > PACKETS / 20, "{understood} {refused}");
}

fn mutated(seed: &[u8], seeds: &[(Option<Version>, Vec<u8>)], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..bytes.len().max(1));
        match random.u8(..6) {
            0 => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << random.u8(..8)),
            1 => bytes.get_mut(at).into_iter().for_each(|byte| *byte = random.u8(..)),
            2 => bytes.truncate(at),
            3 => bytes.insert(at.min(bytes.len()), random.u8(..)),
            4 => bytes.extend_from_within(at.min(bytes.len())..),
            _ => {
                let other = &seeds[random.usize(..seeds.len())].1;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.usize(..other.len())..]);
            }
        }
    }
    // Mostly with a length that fits, or few would come past the first check.
    if bytes.len() > 2 && bytes.len() < 130 && random.u8(..4) > 0 {
        bytes[1] = (bytes.len() - 2) as u8;
    }
    bytes
}

/// Each kind of packet that a client sends, in both versions.
fn seeds() -> Vec<(Option<Version>, Vec<u8>)> {
    let mut seeds = Vec::new();
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
    for (version, seed) in &seeds {
        let mut frames = Frames::default();
        frames.put(seed);
        assert!(decode(frames.next(PACKET_BYTES_MAX).unwrap().unwrap(), *version).is_ok(), "{seed:?}");
    }
    seeds
}
