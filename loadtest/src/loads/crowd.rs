//! Many connections that each hold a request of the same form, and when the server has all of them.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::StatusCode;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};

use super::poller::Poller;
use super::{HOLD, Scene};
use crate::dialects::Live;
use crate::sockets::Progress;
use crate::wire::{Connection, Meter, Metered, Totals, WireError, open};
use crate::workload::MessageId;

/// Between two looks whether all is as it should be.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What a connection holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// A long poll.
    LongPoll,
    /// The answer of a reader of server-sent events.
    Sse,
}

/// The answer to a held poll.
pub(super) struct Answer {
    /// When it was read.
    pub(super) at: Instant,
    /// What it has.
    pub(super) messages: Vec<MessageId>,
}

/// See the module. Everyone leaves when it is dropped.
pub(super) struct Crowd {
    scene: Arc<Scene>,
    form: Form,
    /// What came to whom, of the answers that have come.
    pub(super) answers: mpsc::UnboundedReceiver<Answer>,
    /// What each connection has sent and received.
    traffic: Vec<Arc<Totals>>,
    /// What each had sent when it was last asked to send a request.
    sent_before: Vec<u64>,
    /// Changes when everyone is to poll again.
    turn: watch::Sender<()>,
    everyone: JoinSet<()>,
}

/// One of the crowd.
struct Member {
    poller: Poller,
    traffic: Arc<Totals>,
    answers: mpsc::UnboundedSender<Answer>,
    turn: watch::Receiver<()>,
}

impl Crowd {
    /// Has so many clients connect and send their request, `at_once` of them at a time: the next ones when the server has
    /// those. They take turns on where `pollers` are. `None` if the troubles say why it can not be.
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
            traffic: Vec::new(),
            sent_before: Vec::new(),
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
        let traffic = Arc::<Totals>::default();
        let (turn, answers) = (self.turn.subscribe(), answers.clone());
        self.everyone.spawn(Member { poller, traffic: traffic.clone(), answers, turn }.run(self.form));
        self.traffic.push(traffic);
        self.sent_before.push(0);
    }

    /// Waits until the server has every request: each is written, the server has a connection for each, and the kernel has
    /// neither a connection that waits to be accepted nor a byte that waits to be read. A reader of events also has
    /// the beginning of its answer. Returns when that was so, or `None` if the troubles say why it can not be. What was
    /// answered is to be taken from `answers` before.
    pub(super) async fn all_held(&self) -> Option<Instant> {
        while !self.all_asked() {
            self.look_again().await?;
        }
        while !self.server_has_all().await? {
            self.look_again().await?;
        }
        Some(Instant::now())
    }

    /// Lets everyone poll again.
    pub(super) fn poll_again(&mut self) {
        self.sent_before = self.traffic.iter().map(|traffic| traffic.now().up).collect();
        self.turn.send_replace(());
    }

    fn all_asked(&self) -> bool {
        self.traffic.iter().zip(&self.sent_before).all(|(traffic, before)| {
            let now = traffic.now();
            now.up > *before && (self.form == Form::LongPoll || now.down > 0)
        })
    }

    async fn server_has_all(&self) -> Option<bool> {
        let address = self.scene.target.address;
        let progress = spawn_blocking(move || Progress::of(address)).await.ok().flatten();
        let Some(progress) = progress else {
            self.scene.tally.troubles.note("there is no ss (Debian: iproute2)".to_owned());
            return None;
        };
        Some(progress.established >= self.traffic.len() && progress.waiting == 0)
    }

    async fn look_again(&self) -> Option<()> {
        sleep(LOOK_AGAIN).await;
        let troubles = &self.scene.tally.troubles;
        if !self.answers.is_empty() {
            troubles.note(format!("polling: {} before all were held", WireError::NotHeld));
        }
        troubles.is_empty().then_some(())
    }
}

impl Member {
    async fn run(mut self, form: Form) {
        let ended = match form {
            Form::LongPoll => self.poll().await,
            Form::Sse => self.follow().await,
        };
        if let Err(error) = ended {
            self.poller.scene.tally.troubles.note(format!("polling: {error}"));
        }
    }

    async fn connect(&self) -> Result<Connection, WireError> {
        let meter = Arc::new(Meter::new(self.traffic.clone(), false));
        Connection::over(Metered::new(open(self.poller.scene.target.address).await?, meter)).await
    }

    /// Holds a poll each turn.
    async fn poll(&mut self) -> Result<(), WireError> {
        let mut connection = self.connect().await?;
        loop {
            let answer = connection.exchange(self.poller.poll(Some(HOLD))?).await?;
            let at = Instant::now();
            let messages = self.poller.read(&answer)?;
            // Nobody is there to hear it when the crowd goes.
            let _gone = self.answers.send(Answer { at, messages });
            if self.turn.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Reads events until the answer ends, which it should not.
    async fn follow(&mut self) -> Result<(), WireError> {
        let mut connection = self.connect().await?;
        let Poller { scene, stream, cursor } = &self.poller;
        let request = scene.dialect()?.follow(stream, cursor.as_deref(), Live::Sse, None);
        let mut answer = connection.send(scene.addressed(request)?).await?;
        if answer.status() != StatusCode::OK {
            return Err(WireError::Status(answer.status()));
        }
        while let Some(frame) = answer.frame().await {
            frame?;
        }
        Err(WireError::Closed)
    }
}
