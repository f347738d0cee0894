//! [`ChannelInterest`]: the channels on which this gateway has to hear changes, as it has readers of their streams or subscribers by wildcard, and
//! those on which it hears them.
//!
//! A reader's stream is *heard* once its channel is subscribed to. A read that begins before that may miss a change, so it waits for the
//! channel for a moment, and if it goes on without, the tail of the stream is read again as soon as it is heard.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use super::argument::{ChangeChannel, PARTITIONS};
use crate::stream::StreamName;

/// How long a read waits for its stream to be heard. The engine confirms a subscription as soon as it answers a call.
const HEARD_WITHIN: Duration = Duration::from_millis(100);

/// See the [module](self) documentation.
#[derive(Debug, Default)]
pub(super) struct ChannelInterest {
    channels: Mutex<Channels>,
    /// Changes whenever a channel is to be subscribed to.
    wanted: watch::Sender<()>,
    /// Changes whenever a channel is heard.
    heard: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Channels {
    /// The number of streams with readers of each bucket that has any.
    buckets: HashMap<ChangeChannel, usize>,
    /// The number of subscribers by wildcard, which need the changes of all streams.
    wildcards: usize,
    /// The number of connections that are subscribed to a channel: for a moment two, when its partition moves to another server.
    heard: HashMap<ChangeChannel, usize>,
    /// Channels that are wanted and not heard.
    missing: BTreeSet<ChangeChannel>,
    /// Streams that were read before they were heard.
    read_early: HashSet<StreamName>,
}

impl Channels {
    fn hears(&self, channel: ChangeChannel) -> bool {
        self.heard.contains_key(&channel) || self.hears_every(channel.partition)
    }

    fn hears_every(&self, partition: u64) -> bool {
        self.heard.contains_key(&ChangeChannel::every(partition))
    }

    fn is_wanted(&self, channel: ChangeChannel) -> bool {
        match channel.is_every() {
            true => self.wildcards > 0,
            false => self.buckets.contains_key(&channel) && !self.is_in_every(channel.partition),
        }
    }

    /// Whether the changes of all streams of a partition are heard, and go on to be.
    fn is_in_every(&self, partition: u64) -> bool {
        self.wildcards > 0 && self.hears_every(partition)
    }

    /// Whether a channel that is heard is not needed any more. That of all streams is, until the buckets are heard that replace it.
    fn is_needless(&self, channel: ChangeChannel) -> bool {
        let is_replaced = || self.missing.iter().all(|missing| missing.partition != channel.partition);
        !self.is_wanted(channel) && (!channel.is_every() || is_replaced())
    }

    fn unhear(&mut self, channel: ChangeChannel) {
        if let Some(connections) = self.heard.get_mut(&channel) {
            *connections -= 1;
            if *connections == 0 {
                self.heard.remove(&channel);
            }
        }
        if !self.hears(channel) && self.is_wanted(channel) {
            self.missing.insert(channel);
        }
    }
}

impl ChannelInterest {
    /// A stream has readers from now on.
    pub(super) fn readers_begin(&self, name: &StreamName) {
        let channel = ChangeChannel::of(name);
        let mut channels = self.channels.lock();
        *channels.buckets.entry(channel).or_default() += 1;
        if !channels.hears(channel) && channels.missing.insert(channel) {
            drop(channels);
            self.wanted.send_replace(());
        }
    }

    /// A stream has no readers any more.
    pub(super) fn readers_end(&self, name: &StreamName) {
        let channel = ChangeChannel::of(name);
        let channels = &mut *self.channels.lock();
        channels.read_early.remove(name);
        if let Some(streams) = channels.buckets.get_mut(&channel) {
            *streams -= 1;
            if *streams == 0 {
                channels.buckets.remove(&channel);
                channels.missing.remove(&channel);
            }
        }
    }

    /// There is another subscriber by wildcard.
    pub(super) fn wildcard_begins(&self) {
        let channels = &mut *self.channels.lock();
        channels.wildcards += 1;
        if channels.wildcards == 1 {
            let every = (0..PARTITIONS).map(ChangeChannel::every);
            channels.missing.extend(every.filter(|every| !channels.heard.contains_key(every)));
            self.wanted.send_replace(());
        }
    }

    /// A subscriber by wildcard has left.
    pub(super) fn wildcard_ends(&self) {
        let channels = &mut *self.channels.lock();
        channels.wildcards = channels.wildcards.saturating_sub(1);
        if channels.wildcards == 0 {
            channels.missing.retain(|channel| !channel.is_every());
            let buckets = channels.buckets.keys();
            channels.missing.extend(buckets.filter(|bucket| !channels.heard.contains_key(bucket)));
            self.wanted.send_replace(());
        }
    }

    /// Changes whenever a channel is to be subscribed to.
    pub(super) fn wanted(&self) -> watch::Receiver<()> {
        self.wanted.subscribe()
    }

    /// The channels of some partitions that are wanted and not heard.
    pub(super) fn missing(&self, partitions: &BTreeSet<u64>) -> Vec<ChangeChannel> {
        let channels = self.channels.lock();
        channels.missing.iter().filter(|channel| partitions.contains(&channel.partition)).copied().collect()
    }

    /// A connection hears a channel from now on.
    pub(super) fn hear(&self, channel: ChangeChannel) {
        let mut channels = self.channels.lock();
        *channels.heard.entry(channel).or_default() += 1;
        channels.missing.remove(&channel);
        drop(channels);
        self.heard.send_replace(());
    }

    /// A connection does not hear these channels any more.
    pub(super) fn unhear(&self, lost: &BTreeSet<ChangeChannel>) {
        let mut channels = self.channels.lock();
        lost.iter().for_each(|channel| channels.unhear(*channel));
    }

    /// Takes from the channels that a connection hears those that are not needed any more.
    pub(super) fn take_needless(&self, subscribed: &mut BTreeSet<ChangeChannel>) -> Vec<ChangeChannel> {
        let mut channels = self.channels.lock();
        let needless: Vec<_> =
            subscribed.iter().filter(|channel| channels.is_needless(**channel)).copied().collect();
        for channel in &needless {
            subscribed.remove(channel);
            channels.unhear(*channel);
        }
        needless
    }

    /// Whether the changes of a stream with readers are heard.
    pub(super) fn hears(&self, name: &StreamName) -> bool {
        self.channels.lock().hears(ChangeChannel::of(name))
    }

    /// Waits until a stream with readers is heard, for a moment if `may_wait`. If it is not, its tail is read again when it is.
    pub(super) async fn wait_until_heard(&self, name: &StreamName, may_wait: bool) {
        let mut changes = self.heard.subscribe();
        let heard = async {
            while !self.hears(name) {
                // It ends with this, not before.
                let _changed = changes.changed().await;
            }
        };
        let patience = if may_wait { HEARD_WITHIN } else { Duration::ZERO };
        if timeout(patience, heard).await.is_err() {
            let channels = &mut *self.channels.lock();
            if channels.buckets.contains_key(&ChangeChannel::of(name)) {
                channels.read_early.insert(name.clone());
            }
        }
    }

    /// Takes the streams that were read before they were heard, and are heard now.
    pub(super) fn take_read_early(&self) -> Vec<StreamName> {
        let channels = &mut *self.channels.lock();
        let mut early = std::mem::take(&mut channels.read_early);
        let heard = early.extract_if(|name| channels.hears(ChangeChannel::of(name))).collect();
        channels.read_early = early;
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> BTreeSet<u64> {
        (0..PARTITIONS).collect()
    }

    fn name(text: &str) -> StreamName {
        StreamName::parse(text).unwrap()
    }

    /// A connection that hears what is missing, as long as it is needed.
    #[derive(Default)]
    struct Connection(BTreeSet<ChangeChannel>);

    impl Connection {
        fn subscribe(&mut self, interest: &ChannelInterest) -> usize {
            let missing = interest.missing(&all());
            for channel in &missing {
                assert!(self.0.insert(*channel));
                interest.hear(*channel);
            }
            missing.len()
        }

        fn unsubscribe(&mut self, interest: &ChannelInterest) -> usize {
            interest.take_needless(&mut self.0).len()
        }
    }

    #[test]
    fn the_channels_of_streams_with_readers_are_wanted() {
        let (interest, mut connection) = (ChannelInterest::default(), Connection::default());
        let [a, b] = ["a", "b"].map(name);
        assert_ne!(ChangeChannel::of(&a), ChangeChannel::of(&b));
        interest.readers_begin(&a);
        interest.readers_begin(&b);
        assert_eq!(
            (interest.hears(&a), connection.subscribe(&interest), interest.hears(&a)),
            (false, 2, true)
        );
        interest.readers_end(&a);
        assert_eq!(connection.subscribe(&interest) + connection.unsubscribe(&interest), 1);
        assert_eq!((interest.hears(&a), interest.hears(&b)), (false, true));
        interest.readers_begin(&a);
        assert_eq!((connection.subscribe(&interest), connection.unsubscribe(&interest)), (1, 0));
        interest.unhear(&std::mem::take(&mut connection.0));
        assert_eq!(
            (interest.hears(&b), connection.subscribe(&interest)),
            (false, 2),
            "the connection was lost"
        );
    }

    #[test]
    fn a_subscriber_by_wildcard_needs_all_changes_and_each_reader_is_heard_all_the_time() {
        let (interest, mut connection) = (ChannelInterest::default(), Connection::default());
        let [a, b] = ["a", "b"].map(name);
        assert_ne!(ChangeChannel::of(&a).partition, ChangeChannel::of(&b).partition);
        interest.readers_begin(&a);
        connection.subscribe(&interest);
        interest.wildcard_begins();
        interest.wildcard_begins();
        assert_eq!(connection.unsubscribe(&interest), 0, "not before all are heard");
        assert_eq!(connection.subscribe(&interest), PARTITIONS as usize);
        assert_eq!(connection.unsubscribe(&interest), 1, "nothing is heard twice");
        interest.readers_begin(&b);
        assert_eq!((connection.subscribe(&interest), interest.hears(&b)), (0, true));
        interest.wildcard_ends();
        assert_eq!(connection.unsubscribe(&interest), 0);
        interest.wildcard_ends();
        assert_eq!(connection.unsubscribe(&interest), PARTITIONS as usize - 2, "those of the buckets remain");
        assert_eq!((connection.subscribe(&interest), connection.unsubscribe(&interest)), (2, 2));
        assert!(interest.hears(&a) && interest.hears(&b));
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_waits_until_its_stream_is_heard_and_is_repeated_if_it_went_on_before() {
        let interest = ChannelInterest::default();
        let a = name("a");
        interest.readers_begin(&a);
        let begun = tokio::time::Instant::now();
        interest.wait_until_heard(&a, false).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        interest.hear(ChangeChannel::of(&a));
        assert_eq!(interest.take_read_early(), std::slice::from_ref(&a));
        interest.unhear(&BTreeSet::from([ChangeChannel::of(&a)]));
        interest.wait_until_heard(&a, true).await;
        assert_eq!(begun.elapsed(), HEARD_WITHIN);
        assert!(interest.take_read_early().is_empty(), "it is not heard yet");
        let wait = async {
            interest.wait_until_heard(&a, true).await;
            begun.elapsed()
        };
        let hear = async { interest.hear(ChangeChannel::of(&a)) };
        assert_eq!(tokio::join!(wait, hear).0, HEARD_WITHIN, "not later");
        assert_eq!(interest.take_read_early(), std::slice::from_ref(&a));
        assert!(interest.take_read_early().is_empty());
    }
}
