//! Readers, and what each has handled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use pollgate_client::{Client, Form, Item, Message, ResumeToken, Settings, Start, Subscription};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::link::Link;
use super::plain;
use super::scenario::ReaderPlan;
use super::truth::{Handled, Text, texts};
use super::world::World;
use crate::simulate::SimulationError;

/// What a reader has handled, by stream, and what it was told that it should not have been.
#[derive(Debug, Default, Clone)]
pub(super) struct Log {
    pub(super) streams: BTreeMap<String, Vec<Handled>>,
    /// Streams that the reader knows to be closed.
    pub(super) closed: Vec<String>,
    pub(super) wrong: Vec<String>,
    /// The form in use.
    pub(super) form: Option<Form>,
}

/// A reader, which runs in a task of its own.
pub(super) struct Reader {
    pub(super) number: u32,
    pub(super) plan: ReaderPlan,
    log: watch::Receiver<Log>,
}

/// Where the task of a reader writes.
pub(super) struct Notes {
    pub(super) world: Arc<World>,
    pub(super) link: Arc<Link>,
    pub(super) number: u32,
    log: watch::Sender<Log>,
}

impl Reader {
    pub(super) fn start(world: &Arc<World>, plan: ReaderPlan, number: u32) -> Result<Self, SimulationError> {
        let (sender, log) = watch::channel(Log::default());
        let link = Arc::new(Link::new(world.clone(), number, world.random()));
        world.note(number, &format!("reads: {plan:?}"));
        let notes = Notes { world: world.clone(), link, number, log: sender };
        let name = |stream: usize| world.scenario.streams.get(stream).map(|plan| plan.name.clone());
        match &plan {
            ReaderPlan::Client { settings, streams, crashes, handling } => {
                let streams = streams.iter().copied().filter_map(name).collect();
                let program = Program {
                    settings: (**settings).clone(),
                    streams,
                    crashes: *crashes,
                    handling: *handling,
                    random: world.random(),
                    saved: Mutex::default(),
                };
                tokio::spawn(async move { program.run(notes).await });
            }
            ReaderPlan::EventSource { stream } => {
                tokio::spawn(plain::event_source(notes, name(*stream).unwrap_or_default()));
            }
            ReaderPlan::Poller { stream } => {
                tokio::spawn(plain::poller(notes, name(*stream).unwrap_or_default()));
            }
        }
        Ok(Self { number, plan, log })
    }

    /// The streams that are read.
    pub(super) fn streams(&self, world: &World) -> Vec<String> {
        let numbers = match &self.plan {
            ReaderPlan::Client { streams, .. } => streams.clone(),
            ReaderPlan::EventSource { stream } | ReaderPlan::Poller { stream } => vec![*stream],
        };
        let plans = numbers.into_iter().filter_map(|number| world.scenario.streams.get(number));
        plans.map(|plan| plan.name.clone()).collect()
    }

    /// Waits until the log is as wanted. Returns whether it was before the deadline.
    pub(super) async fn until(&mut self, deadline: Instant, wanted: impl Fn(&Log) -> bool) -> bool {
        timeout_at(deadline, self.log.wait_for(|log| wanted(log))).await.is_ok_and(|log| log.is_ok())
    }

    pub(super) fn log(&self) -> Log {
        self.log.borrow().clone()
    }

    /// The longest time from a publish to the handling when nothing fails.
    pub(super) fn patience(&self) -> Duration {
        let polls = match &self.plan {
            ReaderPlan::Client { settings, .. } if self.log.borrow().form == Some(Form::ShortPoll) => {
                settings.interval
            }
            _ => Duration::ZERO,
        };
        polls + PROMPT
    }
}

/// The longest time to the handling of a message of which the gateway tells its reader. The planned end of a live form is in it.
const PROMPT: Duration = Duration::from_secs(2);

impl Log {
    pub(super) fn has(&self, stream: &str, text: Text) -> bool {
        let handled = self.streams.get(stream).into_iter().flatten();
        handled.rev().any(|entry| *entry == Handled::Message(text))
    }

    fn count(&self) -> BTreeMap<String, usize> {
        self.streams.iter().map(|(stream, handled)| (stream.clone(), handled.len())).collect()
    }

    /// Forgets what was handled since, as a program does that crashes.
    fn roll_back(&mut self, counts: &BTreeMap<String, usize>) {
        for (stream, handled) in &mut self.streams {
            handled.truncate(counts.get(stream).copied().unwrap_or_default());
        }
    }
}

impl Notes {
    /// Handles the messages in this content.
    pub(super) fn messages(&self, stream: &str, content: &[u8]) {
        let Some(texts) = texts(content) else {
            return self.wrong(format!("{stream}: mutilated: {}", String::from_utf8_lossy(content)));
        };
        for text in texts {
            self.world.note(self.number, &format!("handles {} of {}", text.number, text.publisher));
            self.add(stream, Handled::Message(text));
        }
    }

    fn add(&self, stream: &str, handled: Handled) {
        self.log.send_modify(|log| log.streams.entry(stream.to_owned()).or_default().push(handled));
    }

    pub(super) fn closed(&self, stream: &str) {
        self.world.note(self.number, "is told that the stream is closed");
        self.log.send_modify(|log| log.closed.push(stream.to_owned()));
    }

    pub(super) fn wrong(&self, what: String) {
        self.world.note(self.number, &what);
        self.log.send_modify(|log| log.wrong.push(what));
    }
}

/// A program that reads with the client, and saves its position behind what it has handled.
struct Program {
    settings: Settings,
    streams: Vec<String>,
    crashes: f64,
    handling: Duration,
    random: Rng,
    saved: Mutex<Saved>,
}

/// What a program finds after a crash.
#[derive(Default)]
struct Saved {
    token: Option<ResumeToken>,
    /// How much of each stream it had handled when it saved the token.
    handled: BTreeMap<String, usize>,
}

impl Program {
    /// Runs, crashes and starts again.
    async fn run(mut self, notes: Notes) {
        while self.live(&notes).await {
            notes.world.note(notes.number, "crashes");
            let down = Duration::from_millis(self.random.u64(0..2000));
            sleep(down).await;
            let saved = self.saved.lock();
            notes.log.send_modify(|log| log.roll_back(&saved.handled));
        }
    }

    /// Runs until it crashes. Returns false when the subscription has ended.
    async fn live(&mut self, notes: &Notes) -> bool {
        let mut subscription = match self.subscribe(notes) {
            Ok(subscription) => subscription,
            Err(error) => {
                notes.wrong(error.to_string());
                return false;
            }
        };
        loop {
            let Some(item) = subscription.next().await else { return false };
            notes.log.send_modify(|log| log.form = subscription.form());
            // What was handled before is saved now, and not what is handled next.
            self.save(subscription.resume_token(), notes);
            if !notes.world.calm.is_set() {
                if !self.handling.is_zero() {
                    sleep(self.handling.mul_f64(self.random.f64())).await;
                }
                if self.random.f64() < self.crashes {
                    return true;
                }
            }
            handle(item, notes);
        }
    }

    fn subscribe(&self, notes: &Notes) -> Result<Subscription, SimulationError> {
        let (link, world, number) = (notes.link.clone(), notes.world.clone(), notes.number);
        let client = Client::builder("http://localhost")
            .settings(self.settings.clone())
            .connector(move |_, _| link.clone().connect())
            .on_event(move |event| world.note(number, &format!("{event:?}")))
            .build()?;
        let start = match self.saved.lock().token.clone() {
            Some(token) => Start::after(token).unknown_from_earliest(),
            None => Start::earliest(),
        };
        Ok(client.subscribe(self.streams.clone(), start))
    }

    fn save(&self, token: Option<&ResumeToken>, notes: &Notes) {
        let mut saved = self.saved.lock();
        if saved.token.as_ref() != token {
            *saved = Saved { token: token.cloned(), handled: notes.log.borrow().count() };
        }
    }
}

fn handle(item: Item, notes: &Notes) {
    match item {
        Item::Message(Message { stream, data, .. }) => notes.messages(&stream, data.bytes()),
        Item::Gap { stream, .. } => notes.add(&stream, Handled::Gap),
        Item::Closed { stream } => notes.closed(&stream),
        // It has not been created yet.
        Item::Missing { .. } => {}
        other => notes.wrong(format!("{other:?}")),
    }
}

/// Readers that come and go while others wait.
pub(super) async fn pass_by(world: Arc<World>, stream: String) -> Result<(), SimulationError> {
    let link = Arc::new(Link::new(world.clone(), PASSERSBY, world.random()));
    let mut random = world.random();
    let settings = Settings { forms: vec![Form::LongPoll], ..Settings::default() };
    let client = Client::builder("http://localhost")
        .settings(settings)
        .connector(move |_, _| link.clone().connect())
        .build()?;
    loop {
        let mut subscription = client.subscribe([stream.clone()], Start::now());
        let stay = Duration::from_millis(random.u64(0..1500));
        let _gone_or_woken = tokio::time::timeout(stay, subscription.next()).await;
        drop(subscription);
        sleep(Duration::from_millis(random.u64(0..300))).await;
    }
}

/// Number of the readers that come and go in the trace.
const PASSERSBY: u32 = 99;
