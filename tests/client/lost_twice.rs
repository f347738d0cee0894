//! Responses that are lost several times in a row: the gateway recognizes each retry of a publish by its producer's fields.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pollgate_client::Settings;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::reading::{client, publish, settings};
use crate::world::{Gateway, delete, get, put};

/// Fate of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    /// The connection is closed instead.
    Closed,
    /// It never arrives, and the connection stays open.
    Silent,
}

use Fate::{Arrives, Closed, Silent};

/// The producer's fields of a request: name, epoch and number.
type Named = [String; 3];

/// A relay that loses responses as scripted.
struct Way {
    gateway: SocketAddr,
    /// Fates of the next responses; later ones arrive.
    fates: Mutex<VecDeque<Fate>>,
    requests: Mutex<Vec<Named>>,
}

impl Way {
    /// Starts a relay, which ends when the tasks are dropped.
    async fn open(gateway: &Gateway) -> (Arc<Self>, SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way =
            Arc::new(Self { gateway: gateway.address, fates: Mutex::default(), requests: Mutex::default() });
        let (mut tasks, carrying) = (JoinSet::new(), way.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let way = carrying.clone();
                connections.spawn(async move { drop(way.carry(client).await) });
            }
        });
        (way, address, tasks)
    }

    fn next_answers(&self, fates: &[Fate]) {
        self.fates.lock().extend(fates);
    }

    /// Returns the requests since the last call.
    fn requests(&self) -> Vec<Named> {
        std::mem::take(&mut self.requests.lock())
    }

    async fn carry(&self, client: TcpStream) -> std::io::Result<()> {
        let (mut client, mut gateway) =
            (BufReader::new(client), BufReader::new(TcpStream::connect(self.gateway).await?));
        loop {
            let request = message(&mut client).await?;
            let text = String::from_utf8_lossy(&request).to_lowercase();
            let field = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_default().to_owned()
            };
            self.requests.lock().push(["producer-id: ", "producer-epoch: ", "producer-seq: "].map(field));
            gateway.write_all(&request).await?;
            let answer = message(&mut gateway).await?;
            let fate = self.fates.lock().pop_front().unwrap_or(Arrives);
            match fate {
                Arrives => client.write_all(&answer).await?,
                Closed => return Ok(()),
                Silent => std::future::pending().await,
            }
        }
    }
}

/// Reads a whole request or response, whose head has its length.
async fn message(from: &mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>> {
    let (mut message, mut length) = (Vec::new(), 0);
    loop {
        let begin = message.len();
        if from.read_until(b'\n', &mut message).await? == 0 {
            return Err(Error::from(ErrorKind::UnexpectedEof));
        }
        let line = String::from_utf8_lossy(&message[begin..]).to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            let head = message.len();
            message.resize(head + length, 0);
            from.read_exact(&mut message[head..]).await?;
            return Ok(message);
        }
    }
}

fn impatient() -> Settings {
    Settings {
        answer_timeout: Duration::from_millis(200),
        backoff_max: Duration::from_millis(200),
        ..settings()
    }
}

async fn stored(gateway: &Gateway) -> Vec<u64> {
    serde_json::from_str(&gateway.send(get("/v1/stream/s")).await.text()).unwrap()
}

#[tokio::test]
async fn every_retry_of_a_publish_names_the_same_producer_and_number() {
    let gateway = Gateway::start(&[]).await;
    let (way, address, _open) = Way::open(&gateway).await;
    let (client, _) = client(address, impatient());
    let producer = client.producer("s", "application/json");
    let losses: [&[Fate]; 7] = [
        &[],
        &[Closed],
        &[Closed, Closed],
        &[Silent, Silent],
        &[Closed, Silent, Closed],
        &[Silent, Closed, Closed, Closed],
        &[],
    ];
    for (number, fates) in (0..).zip(losses) {
        way.next_answers(fates);
        publish(&producer, number..number + 1).await;
        let requests = way.requests();
        assert_eq!(requests.len(), fates.len() + 1, "{fates:?}: {requests:?}");
        for request in &requests {
            assert_eq!(request, &requests[0], "{fates:?}");
            assert_eq!((request[0].len(), &*request[1], &*request[2]), (32, "0", &*number.to_string()));
        }
        assert_eq!(stored(&gateway).await, (0..=number).collect::<Vec<_>>(), "{fates:?}");
    }
}

/// Each time the gateway has forgotten a producer, its numbers begin again with a later epoch.
#[tokio::test]
async fn answers_that_are_lost_after_the_gateway_has_forgotten_a_producer_double_nothing() {
    let gateway = Gateway::start(&[]).await;
    let (way, address, _open) = Way::open(&gateway).await;
    let (client, _) = client(address, impatient());
    let producer = client.producer("s", "application/json");
    publish(&producer, 0..1).await;
    publish(&producer, 1..2).await;
    for life in 1..=3u64 {
        gateway.send(delete("/v1/stream/s")).await.expect(204);
        gateway.send(put("/v1/stream/s").json("[]")).await.expect(201);
        way.requests();
        // The first response reports a gap; the responses to the first attempts of the new epoch are lost.
        way.next_answers(&[Arrives, Closed, Closed]);
        publish(&producer, life..life + 1).await;
        publish(&producer, 9..10).await;
        let named: Vec<_> = way.requests().into_iter().map(|[_, epoch, number]| (epoch, number)).collect();
        let expected = [(life - 1, 2), (life, 0), (life, 0), (life, 0), (life, 1)];
        assert_eq!(named, expected.map(|(epoch, number)| (epoch.to_string(), number.to_string())));
        assert_eq!(stored(&gateway).await, [life, 9]);
    }
}
