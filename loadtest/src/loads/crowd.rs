//! [`Crowd`]: many connections that each hold a request of the same form, and the check that the server holds all of them.

mod member;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};

use super::Scene;
use super::poller::Poller;
use crate::sockets::Progress;
use crate::wire::WireError;

use member::{Answer, Member};

/// Interval between two checks of the crowd's state.
const CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// The request that a connection holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// A long poll.
    LongPoll,
    /// A response of server-sent events.
    Sse,
    /// A WebSocket.
    #[value(name = "websocket")]
    WebSocket,
    /// An MQTT connection with one subscription.
    Mqtt,
}

/// Connections that hold one request each. A drop closes them.
pub(super) struct Crowd {
    scene: Arc<Scene>,
    form: Form,
    /// Answers of held polls, in the order of their arrival.
    pub(super) answers: mpsc::UnboundedReceiver<Answer>,
    /// Number of members that have sent the request of this turn.
    asked: Arc<AtomicUsize>,
    /// Changes when all members are to poll again.
    turn: watch::Sender<()>,
    everyone: JoinSet<()>,
}

impl Crowd {
    /// Connects `clients` members and sends their requests in batches of `at_once`; the next batch follows when the server
    /// holds the previous one. Members use the pollers and the instances of the server in rotation. Returns `None` if it fails; the troubles hold the cause.
    pub(super) async fn gather(
        scene: &Arc<Scene>,
        pollers: &[Poller],
        clients: u32,
        at_once: u32,
        form: Form,
    ) -> Option<Self> {
        let (answered, answers) = mpsc::unbounded_channel();
        let mut crowd = Self {
            scene: scene.clone(),
            form,
            answers,
            asked: Arc::default(),
            turn: watch::Sender::new(()),
            everyone: JoinSet::new(),
        };
        let mut pollers = pollers.iter().cycle().take(clients as usize).peekable();
        while pollers.peek().is_some() {
            pollers.by_ref().take(at_once as usize).for_each(|poller| crowd.join(poller.clone(), &answered));
            crowd.all_held().await?;
        }
        Some(crowd)
    }

    fn join(&mut self, poller: Poller, answers: &mpsc::UnboundedSender<Answer>) {
        let (asked, answers, turn) = (self.asked.clone(), answers.clone(), self.turn.subscribe());
        let member = Member { number: self.everyone.len(), poller, asked, answers, turn };
        self.everyone.spawn(member.run(self.form));
    }

    /// Waits until the server holds every request: each is written, the server has a connection for each, and the kernel has
    /// neither a connection that waits to be accepted nor a byte that waits to be read. A reader in another form than the long
    /// poll also has the beginning of its response. Returns when this was the case, or `None` if it fails; the troubles hold the cause. The
    /// caller takes earlier answers from `answers` before.
    pub(super) async fn all_held(&self) -> Option<Instant> {
        while self.asked.load(Ordering::Acquire) < self.everyone.len() {
            self.sleep_between_checks().await?;
        }
        while !self.server_has_all().await? {
            self.sleep_between_checks().await?;
        }
        Some(Instant::now())
    }

    /// Lets all members poll again. All of them have their answers.
    pub(super) fn poll_again(&mut self) {
        self.asked.store(0, Ordering::Release);
        self.turn.send_replace(());
    }

    async fn server_has_all(&self) -> Option<bool> {
        let instances = self.scene.instances.clone();
        let progress = spawn_blocking(move || Progress::of(&instances)).await.ok().flatten();
        let Some(progress) = progress else {
            self.scene.tally.troubles.note("ss is not installed (Debian: iproute2)".to_owned());
            return None;
        };
        Some(progress.established >= self.everyone.len() && progress.waiting == 0)
    }

    async fn sleep_between_checks(&self) -> Option<()> {
        sleep(CHECK_INTERVAL).await;
        let troubles = &self.scene.tally.troubles;
        if !self.answers.is_empty() {
            troubles.note(format!("polling: {} before all were held", WireError::NotHeld));
        }
        troubles.is_empty().then_some(())
    }
}
