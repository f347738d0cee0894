//! The stored form of a device: one entry of a session whose name no client can have.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::channel::{Channel, QuietHours};
use super::device::{Device, Outstanding, Silence};
use super::interest::{FilterInterest, Interest};
use crate::hub::ClientId;
use crate::stream::{Epoch, Filter, Offset, Position, Principal, SessionChange, StoredSession, StreamName};

/// Begins the names of the sessions of devices. No client id contains a NUL.
pub(in crate::hub) const SESSIONS: &str = "\0device/";

/// The key of the one entry.
const KEY: &[u8] = b"d";

/// Format of the record. A changed format gets a new number; records with an unknown number are skipped.
const FORMAT: u8 = 1;

#[derive(Serialize, Deserialize)]
struct DeviceRecord {
    principal: u64,
    interests: Vec<(String, Option<(u64, u64)>)>,
    channels: Vec<Channel>,
    quiet: Option<QuietHours>,
    escalate_after: Duration,
    expires_at: SystemTime,
    outstanding: Option<Outstanding>,
    silence: Silence,
}

/// What follows a record since devices have filters. Older records end before.
#[derive(Default, Serialize, Deserialize)]
struct RecordAddition {
    filters: Vec<(String, Option<SystemTime>)>,
    credentials: Option<Box<[u8]>>,
}

/// Encodes a device. These types always encode.
pub(super) fn encoded(device: &Device) -> Option<Bytes> {
    let interest = |interest: &Interest| {
        let offset = interest.offset.map(|offset| (offset.epoch.0, offset.position.0));
        (interest.stream.as_str().to_owned(), offset)
    };
    let record = DeviceRecord {
        principal: device.principal.0,
        interests: device.interests.iter().map(interest).collect(),
        channels: device.channels.clone(),
        quiet: device.quiet,
        escalate_after: device.escalate_after,
        expires_at: device.expires_at,
        outstanding: device.outstanding.clone(),
        silence: device.silence,
    };
    let filter = |interest: &FilterInterest| (interest.filter.as_str().to_owned(), interest.read_up_to);
    let addition = RecordAddition {
        filters: device.filters.iter().map(filter).collect(),
        credentials: device.credentials.clone(),
    };
    let record = postcard::to_extend(&record, vec![FORMAT]).ok()?;
    postcard::to_extend(&addition, record).ok().map(Bytes::from)
}

/// The change that stores a record, or removes it.
pub(super) fn change(id: &ClientId, record: Option<Bytes>) -> SessionChange {
    let client = [SESSIONS, id.as_str()].concat().into();
    match record {
        Some(record) => {
            SessionChange { client, anew: false, entries: vec![(Bytes::from_static(KEY), Some(record))] }
        }
        None => SessionChange::end(client),
    }
}

/// Decodes a session of a device. `None`: it is damaged.
pub(super) fn decoded(session: &StoredSession) -> Option<Device> {
    let id = ClientId::stored(session.client.strip_prefix(SESSIONS)?);
    let (_, value) = session.entries.iter().find(|(key, _)| key == KEY)?;
    let (record, rest): (DeviceRecord, _) = match value.split_first()? {
        (&FORMAT, value) => postcard::take_from_bytes(value).ok()?,
        _ => return None,
    };
    let addition: RecordAddition =
        if rest.is_empty() { RecordAddition::default() } else { postcard::from_bytes(rest).ok()? };
    let filter = |(text, read_up_to): (String, Option<SystemTime>)| {
        Some(FilterInterest { filter: Filter::parse(&text).ok()?, read_up_to, news: None })
    };
    let interest = |(stream, offset): (String, Option<(u64, u64)>)| {
        let offset =
            offset.map(|(epoch, position)| Offset { epoch: Epoch(epoch), position: Position(position) });
        Some(Interest { stream: StreamName::stored(&stream).ok()?, offset, tail: None })
    };
    Some(Device {
        id,
        principal: Principal(record.principal),
        interests: record.interests.into_iter().map(interest).collect::<Option<_>>()?,
        filters: addition.filters.into_iter().map(filter).collect::<Option<_>>()?,
        channels: record.channels,
        quiet: record.quiet,
        escalate_after: record.escalate_after,
        expires_at: record.expires_at,
        outstanding: record.outstanding,
        silence: record.silence,
        credentials: addition.credentials,
        connections: 0,
        seen_at: None,
        charged: 0,
        asked_for: false,
    })
}
