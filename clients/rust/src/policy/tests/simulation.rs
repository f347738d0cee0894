//! Simulated networks and readers: a day of a reader takes milliseconds.

use super::super::*;

/// An event of a simulated attempt.
#[derive(Debug, Clone, Copy)]
pub(super) enum NetworkEvent {
    Connected,
    Answered,
    Envelope,
    End(End),
}

pub(super) use NetworkEvent::{Answered, Connected, Envelope};

/// The events of an attempt with their times since its start. After the last event there is silence.
pub(super) type Script = Box<dyn Iterator<Item = (Duration, NetworkEvent)>>;

/// A simulated network: returns the events of an attempt, given its time since the start of the simulation.
pub(super) type Network = fn(&Attempt, Duration) -> Script;

pub(super) const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(super) const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A finished attempt.
#[derive(Debug)]
pub(super) struct AttemptRecord {
    pub(super) form: Form,
    pub(super) heartbeat: Duration,
    pub(super) hold: Duration,
    pub(super) began: Duration,
    pub(super) took: Duration,
    pub(super) envelopes: u32,
}

/// A simulated reader with its finished attempts and events.
pub(super) struct Simulation {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) policy: Policy,
    pub(super) attempts: Vec<AttemptRecord>,
    pub(super) events: Vec<(Duration, Event)>,
}

impl Simulation {
    pub(super) fn new(settings: Settings) -> Self {
        Self::with_known(settings, Known::default())
    }

    pub(super) fn with_known(settings: Settings, known: Known) -> Self {
        let start = Instant::now();
        let policy = Policy::new(settings, known, Rng::with_seed(7), start);
        Self { start, now: start, policy, attempts: Vec::new(), events: Vec::new() }
    }

    /// Runs the reader until this time after the start.
    pub(super) fn run(&mut self, network: Network, until: Duration) -> &mut Self {
        while self.now - self.start < until {
            let step = self.policy.next(self.now);
            self.note();
            match step {
                Step::Wait(next) => self.now = next.min(self.start + until),
                Step::Read => self.attempt(network, self.start + until),
            }
            self.note();
        }
        self
    }

    /// Collects the events of the policy.
    fn note(&mut self) {
        let since = self.now - self.start;
        self.events.extend(self.policy.take_events().into_iter().map(|event| (since, event)));
    }

    /// Simulates one attempt.
    fn attempt(&mut self, network: Network, until: Instant) {
        let began = self.now;
        let script = network(self.policy.attempt(), began - self.start);
        let mut end = None;
        for (after, what) in script {
            let at = began + after;
            if at >= until || self.policy.attempt().deadline() < at {
                break;
            }
            self.now = at;
            match what {
                Connected => self.policy.connected(at),
                Answered => self.policy.answered(at),
                Envelope => self.policy.envelope(true, at),
                NetworkEvent::End(how) => {
                    end = Some(how);
                    break;
                }
            }
        }
        let end = end.unwrap_or_else(|| {
            self.now = self.policy.attempt().deadline().min(until);
            if self.now == until { End::Left } else { self.policy.attempt().expired(self.now) }
        });
        let attempt = self.policy.attempt();
        self.attempts.push(AttemptRecord {
            form: attempt.form,
            heartbeat: attempt.heartbeat,
            hold: attempt.hold,
            began: began - self.start,
            took: self.now - began,
            envelopes: attempt.envelopes,
        });
        self.policy.ended(end, self.now);
    }

    pub(super) fn forms(&self) -> Vec<Form> {
        self.attempts.iter().map(|attempt| attempt.form).collect()
    }

    /// The changes of form since `since`.
    pub(super) fn changes(&self, since: Duration) -> Vec<(Form, Reason)> {
        let changes = self.events.iter().filter_map(|(at, event)| match event {
            Event::Form { to, reason, .. } if *at >= since => Some((*to, *reason)),
            _ => None,
        });
        changes.collect()
    }
}

pub(super) fn script(events: impl IntoIterator<Item = (Duration, NetworkEvent)> + 'static) -> Script {
    Box::new(events.into_iter().collect::<Vec<_>>().into_iter())
}

/// Everything works; each form brings its heartbeats.
pub(super) fn open(attempt: &Attempt, _: Duration) -> Script {
    let (hold, heartbeat) = (attempt.hold, attempt.heartbeat);
    let head = [(millis(20), Connected), (millis(40), Answered), (millis(41), Envelope)];
    if attempt.form.is_live() {
        let heartbeats = (1..).map(move |n| (millis(41) + heartbeat * n, Envelope));
        return Box::new(head.into_iter().chain(heartbeats));
    }
    let answer = [Answered, Envelope, NetworkEvent::End(End::Clean)].map(|what| (hold + millis(40), what));
    script([(millis(20), Connected)].into_iter().chain(answer))
}

/// A NAT: like `open` until the first silence of `limit`, and then nothing.
pub(super) fn nat(limit: Duration, attempt: &Attempt, since: Duration) -> Script {
    let mut last = Duration::ZERO;
    Box::new(open(attempt, since).take_while(move |(at, _)| *at - std::mem::replace(&mut last, *at) < limit))
}

/// A proxy that buffers whole responses.
pub(super) fn buffering(attempt: &Attempt, since: Duration) -> Script {
    if attempt.form.is_live() { script([(millis(20), Connected)]) } else { open(attempt, since) }
}

pub(super) fn no_websocket(attempt: &Attempt, since: Duration) -> Script {
    if attempt.form == Form::WebSocket {
        return script([(millis(20), Connected), (millis(40), NetworkEvent::End(End::Refused(400)))]);
    }
    open(attempt, since)
}

pub(super) fn down(_: &Attempt, _: Duration) -> Script {
    script([(millis(1), NetworkEvent::End(End::Unreachable))])
}

pub(super) fn captive(_: &Attempt, _: Duration) -> Script {
    script([(millis(20), Connected), (millis(40), NetworkEvent::End(End::NotGateway))])
}
