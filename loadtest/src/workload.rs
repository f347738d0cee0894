//! The workload of a run: which message is to be published to which stream at which time.
//!
//! Pure and seeded, so that each process computes the same schedule. A message carries its run, stream and sequence number. The
//! reader looks up the *intended* time here; the time of the actual send is not used.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Minimum bytes of a message: the mark and the quotation marks of its JSON string.
pub const MESSAGE_BYTES_MIN: usize = 2 + MARK_LENGTH;

/// `{run}.{stream}.{sequence}.` in hexadecimal digits of fixed width.
const MARK_LENGTH: usize = 16 + 1 + 8 + 1 + 8 + 1;

/// Parameters of a schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Number of readers.
    pub clients: u32,
    /// Number of streams; client `c` reads stream `c % streams`.
    pub streams: u32,
    /// Messages per second and stream, on average.
    pub rate: f64,
    /// Bytes of a message.
    pub message_bytes: usize,
    /// Warm-up before the measured time.
    pub warm_up: Duration,
    /// The measured time.
    pub measured: Duration,
    /// Seed of the random numbers.
    pub seed: u64,
    /// Number that tells the messages of this run from those of other runs.
    pub run: u64,
}

impl Plan {
    /// Returns the measured time, counted from the start of the run.
    pub fn window(&self) -> Range<Duration> {
        self.warm_up..self.warm_up + self.measured
    }
}

/// Alternating bursts of messages and pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bursts {
    /// Length of a burst.
    pub lasting: Duration,
    /// Length of a pause.
    pub pause: Duration,
}

/// Identifies a message by its stream and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId {
    /// Number of its stream.
    pub stream: u32,
    /// Sequence number in its stream, from 0.
    pub sequence: u32,
}

/// A plan with the times of all messages.
#[derive(Debug)]
pub struct Workload {
    /// The parameters of the schedule.
    pub plan: Plan,
    schedules: Vec<Vec<Duration>>,
}

impl Workload {
    /// Draws the Poisson schedule of each stream, until the end of the measured time.
    pub fn new(plan: Plan) -> Self {
        let schedules = (0..plan.streams).map(|stream| schedule(&plan, stream)).collect();
        Self { plan, schedules }
    }

    /// Like [`Self::new`], without the messages that fall into the pauses between bursts.
    pub fn in_bursts(plan: Plan, bursts: Bursts) -> Self {
        let mut workload = Self::new(plan);
        let of_both = (bursts.lasting + bursts.pause).as_nanos().max(1);
        let lasting = bursts.lasting.as_nanos();
        workload.schedules.iter_mut().for_each(|times| times.retain(|at| at.as_nanos() % of_both < lasting));
        workload
    }

    /// Returns the intended times of a stream's messages, counted from the start of the run.
    pub fn schedule(&self, stream: u32) -> &[Duration] {
        self.schedules.get(stream as usize).map_or(&[], Vec::as_slice)
    }

    /// Returns when a message is to be published; `None` if there is no such message.
    pub fn intended(&self, message: MessageId) -> Option<Duration> {
        self.schedule(message.stream).get(message.sequence as usize).copied()
    }

    /// Whether a message is intended for the measured time.
    pub fn is_measured(&self, message: MessageId) -> bool {
        self.intended(message).is_some_and(|intended| self.plan.window().contains(&intended))
    }

    /// Returns all messages of the streams that `wanted` accepts, by intended time.
    pub fn in_order(&self, wanted: impl Fn(u32) -> bool) -> Vec<(Duration, MessageId)> {
        let mut all = Vec::new();
        for stream in (0..self.plan.streams).filter(|stream| wanted(*stream)) {
            let times = self.schedule(stream).iter().zip(0..);
            all.extend(times.map(|(at, sequence)| (*at, MessageId { stream, sequence })));
        }
        all.sort_unstable_by_key(|(at, message)| (*at, message.stream, message.sequence));
        all
    }

    /// Returns the messages per second and stream that were actually drawn for the measured time.
    pub fn drawn_rate(&self) -> f64 {
        let window = self.plan.window();
        let inside: usize = self.schedules.iter().map(|times| within(times, &window)).sum();
        inside as f64 / f64::from(self.plan.streams.max(1)) / self.plan.measured.as_secs_f64()
    }

    /// Returns the body of a message: a JSON string of the planned size.
    pub fn body(&self, message: MessageId) -> String {
        let MessageId { stream, sequence } = message;
        let mark = format!("\"{:016x}.{stream:08x}.{sequence:08x}.", self.plan.run);
        let padding = self.plan.message_bytes.saturating_sub(mark.len() + 1);
        format!("{mark}{}\"", "x".repeat(padding))
    }

    /// Returns the messages of this run that are complete in `text`, in order; other text is skipped.
    pub fn find_in<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = MessageId> + 'a {
        let run = format!("{:016x}.", self.plan.run);
        let places: Vec<usize> = memchr::memmem::find_iter(text, run.as_bytes()).collect();
        places.into_iter().filter_map(|place| self.parse(text.get(place..)?))
    }

    /// Parses the message at the start of `text`; `None` if it is incomplete or altered.
    fn parse(&self, text: &[u8]) -> Option<MessageId> {
        let text = text.get(..self.plan.message_bytes.checked_sub(1)?)?;
        let mark = std::str::from_utf8(text.get(17..MARK_LENGTH)?).ok()?;
        let (stream, sequence) = mark.strip_suffix('.')?.split_once('.')?;
        let message = MessageId {
            stream: u32::from_str_radix(stream, 16).ok()?,
            sequence: u32::from_str_radix(sequence, 16).ok()?,
        };
        let (end, padding) = text.get(MARK_LENGTH..)?.split_last()?;
        (*end == b'"' && padding.iter().all(|byte| *byte == b'x')).then_some(message)
    }
}

/// Counts the ascending `times` that lie in `window`.
pub fn within(times: &[Duration], window: &Range<Duration>) -> usize {
    times.partition_point(|at| *at < window.end) - times.partition_point(|at| *at < window.start)
}

/// Draws a Poisson process, whose gaps have an exponential distribution.
fn schedule(plan: &Plan, stream: u32) -> Vec<Duration> {
    let mut random = fastrand::Rng::with_seed(plan.seed ^ (u64::from(stream) << 32 | 0x9e37_79b9));
    let (mut times, mut at) = (Vec::new(), 0.0);
    let end = plan.window().end.as_secs_f64();
    if plan.rate <= 0.0 {
        return times;
    }
    loop {
        at -= (1.0 - random.f64()).ln() / plan.rate;
        if at >= end {
            return times;
        }
        times.push(Duration::from_secs_f64(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let seconds = Duration::from_secs;
        Plan {
            clients: 100,
            streams: 100,
            rate: 2.0,
            message_bytes: 64,
            warm_up: seconds(10),
            measured: seconds(100),
            seed: 7,
            run: 0xabc,
        }
    }

    #[test]
    fn equal_seeds_draw_equal_schedules_and_other_seeds_others() {
        let (one, same) = (Workload::new(plan()), Workload::new(plan()));
        let other = Workload::new(Plan { seed: 8, ..plan() });
        assert_eq!(one.schedule(3), same.schedule(3));
        assert_ne!(one.schedule(3), other.schedule(3));
        assert_ne!(one.schedule(3), one.schedule(4));
    }

    /// 22 000 messages: the standard deviation of the mean is 0.7 %, and that of the mean of squares 1.5 %.
    #[test]
    fn gaps_are_exponential() {
        let workload = Workload::new(plan());
        let gaps: Vec<f64> = (0..100)
            .flat_map(|stream| {
                let times = workload.schedule(stream);
                times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect::<Vec<_>>()
            })
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let squares = gaps.iter().map(|gap| gap * gap).sum::<f64>() / gaps.len() as f64;
        assert!((mean / 0.5 - 1.0).abs() < 0.03, "mean {mean}");
        assert!((squares / 0.5 - 1.0).abs() < 0.06, "mean of squares {squares}");
        assert!((workload.drawn_rate() / 2.0 - 1.0).abs() < 0.03, "{}", workload.drawn_rate());
    }

    #[test]
    fn no_message_falls_between_bursts() {
        let bursts = Bursts { lasting: Duration::from_secs(2), pause: Duration::from_secs(3) };
        let (all, some) = (Workload::new(plan()), Workload::in_bursts(plan(), bursts));
        let is_in_burst = |at: &&Duration| at.as_secs_f64() % 5.0 < 2.0;
        assert!(!some.schedule(3).is_empty());
        assert!(some.schedule(3).iter().eq(all.schedule(3).iter().filter(is_in_burst)));
    }

    #[test]
    fn complete_messages_are_found_within_other_text() {
        let workload = Workload::new(plan());
        let ids = [(3, 0), (3, 1), (99, 17)].map(|(stream, sequence)| MessageId { stream, sequence });
        let bodies = ids.map(|id| workload.body(id));
        assert!(bodies.iter().all(|body| body.len() == 64), "{bodies:?}");
        let text = format!("data:[{}]\n\n", bodies.join(","));
        assert_eq!(workload.find_in(text.as_bytes()).collect::<Vec<_>>(), ids);
        assert_eq!(workload.find_in(&text.as_bytes()[..text.len() - 10]).count(), 2);
        assert_eq!(workload.find_in(text.replace('x', "y").as_bytes()).count(), 0);
        let foreign = Workload::new(Plan { run: 0xabd, ..plan() });
        assert_eq!(foreign.find_in(text.as_bytes()).count(), 0);
    }

    #[test]
    fn messages_are_sent_in_the_order_of_their_intended_times() {
        let workload = Workload::new(plan());
        let all = workload.in_order(|stream| stream % 2 == 0);
        assert!(all.is_sorted_by_key(|(at, _)| *at) && all.iter().all(|(_, id)| id.stream % 2 == 0));
        assert_eq!(all.len(), (0..50).map(|half| workload.schedule(2 * half).len()).sum::<usize>());
    }
}
