//! One connection of the measurement: whether messages arrive over it, how soon, and whether it bears a silence.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pollgate_client::{Builder, Client, Form, Item, Producer, Settings, Start, Subscription};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// Within this time the first message has to arrive, or the form counts as blocked.
pub(super) const FIRST_WITHIN: Duration = Duration::from_secs(15);

/// Within this time a message has to arrive after a silence, or the connection did not bear it. Opening another one takes longer
/// on most networks that drop connections in silence.
const AFTER_SILENCE_WITHIN: Duration = Duration::from_secs(5);

/// Time between two short polls.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long before its end a held poll gets its message.
const BEFORE_END_OF_HOLD: Duration = Duration::from_millis(1500);

/// Longest silence of a response by events or lines, which the gateway ends after about a minute.
const RESPONSE_SILENCE_MAX: Duration = Duration::from_secs(45);

/// Longest heartbeat of the protocol, so that nothing is sent during a silence.
const NO_HEARTBEAT: Duration = Duration::from_secs(300);

/// Messages whose delivery is timed.
const MESSAGES: usize = 5;

/// A subscription by one form, and a producer for its stream.
pub(super) struct Probe {
    subscription: Subscription,
    producer: Producer,
    /// Connections that were opened.
    opened: Arc<AtomicU32>,
    silence: Duration,
}

/// What one connection has shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// Median time to the delivery of a message. `None`: the form is blocked.
    pub(super) delivered: Option<Duration>,
    /// After the silence, a message arrived over the same connection.
    pub(super) bears: bool,
}

impl Probe {
    /// Whether a connection of this form can be silent for so long.
    pub(super) fn can_be_silent(form: Form, silence: Duration) -> bool {
        match form {
            Form::WebSocket | Form::LongPoll => true,
            Form::Sse | Form::Ndjson => silence <= RESPONSE_SILENCE_MAX,
            Form::ShortPoll => silence.is_zero(),
        }
    }

    /// Connects by `reader`. The publisher is another client, whose connections may end meanwhile.
    pub(super) fn start(
        reader: Builder,
        publisher: &Client,
        stream: &str,
        form: Form,
        silence: Duration,
    ) -> Result<Self, Box<dyn Error>> {
        let settings = Settings {
            forms: vec![form],
            heartbeat_min: NO_HEARTBEAT,
            heartbeat_max: NO_HEARTBEAT,
            hold: silence,
            interval: INTERVAL,
            envelope_timeout: FIRST_WITHIN,
            envelope_timeout_max: FIRST_WITHIN,
            ..Settings::default()
        };
        let opened = Arc::new(AtomicU32::new(0));
        let count = opened.clone();
        let client = reader
            .settings(settings)
            .connector(move |host, port| {
                count.fetch_add(1, Ordering::Relaxed);
                let host = host.to_owned();
                async move { TcpStream::connect((host, port)).await }
            })
            .build()?;
        let producer = publisher.producer(stream, "application/json");
        let subscription = client.subscribe([stream], Start::earliest());
        let silence = match form {
            Form::LongPoll => silence.saturating_sub(BEFORE_END_OF_HOLD),
            Form::WebSocket | Form::Sse | Form::Ndjson | Form::ShortPoll => silence,
        };
        Ok(Self { subscription, producer, opened, silence })
    }

    pub(super) async fn run(mut self) -> Found {
        let mut times = Vec::new();
        for _ in 0..MESSAGES {
            match timeout(FIRST_WITHIN, self.deliver()).await {
                Ok(Some(time)) => times.push(time),
                _ => return Found { delivered: None, bears: false },
            }
        }
        times.sort_unstable();
        let delivered = times.get(MESSAGES / 2).copied();
        let opened = self.opened.load(Ordering::Relaxed);
        let is_late = tokio::select! {
            item = self.subscription.next() => item.is_none(),
            () = sleep(self.silence) => false,
        };
        let arrived = timeout(AFTER_SILENCE_WITHIN, self.deliver()).await;
        let is_same = self.opened.load(Ordering::Relaxed) == opened;
        Found { delivered, bears: !is_late && is_same && matches!(arrived, Ok(Some(_))) }
    }

    /// Publishes a message and waits for it. Returns the time from the acknowledgement or the delivery, whichever is later, back to the publish. `None`: the
    /// subscription or the producer has ended.
    async fn deliver(&mut self) -> Option<Duration> {
        let began = Instant::now();
        let published = self.producer.publish("1");
        let arrived = async {
            loop {
                if let Item::Message(_) = self.subscription.next().await? {
                    return Some(began.elapsed());
                }
            }
        };
        let (published, arrived) = tokio::join!(published, arrived);
        published.ok().and(arrived)
    }
}
