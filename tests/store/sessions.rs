//! Sessions in a store on disk: over restarts, and while space is reclaimed.

use bytes::Bytes;
use pollgate::store::Memory;
use pollgate::stream::{Append, Create, Retention, SessionChange};

use crate::directory::{directory, size, world, world_of};
use crate::suite::*;

/// Smaller files than in other tests: an unchanged session must be moved often.
const SEGMENT_BYTES: u32 = 16 * 1024;

/// A store on disk and a store in memory that get the same requests.
struct Pair {
    disk: World,
    model: World,
}

impl Pair {
    async fn change(&self, change: SessionChange) {
        for world in [&self.disk, &self.model] {
            world.store.change_session(change.clone()).await.unwrap();
        }
    }

    async fn append(&self, stream: &str, session: Option<SessionChange>) {
        let append = Append { session, ..append(text(), raw(&[b'x'; 500])) };
        for world in [&self.disk, &self.model] {
            world.append(stream, append.clone()).await.unwrap();
        }
    }

    async fn compare(&self, when: &str) {
        assert_eq!(self.disk.sessions().await, self.model.sessions().await, "{when}");
    }
}

fn random_change(random: &mut fastrand::Rng) -> SessionChange {
    let client = format!("client/{}", random.u32(..64)).into();
    if random.u32(..4) == 0 {
        return SessionChange::end(client);
    }
    let entry = |random: &mut fastrand::Rng| {
        let key = Bytes::from(format!("key/{}", random.u32(..5)));
        (
            key,
            (random.u32(..4) > 0)
                .then(|| Bytes::from(format!("{:0>1$}", random.u32(..), random.usize(1..50)))),
        )
    };
    let entries = (0..random.usize(..5)).map(|_| entry(random)).collect();
    SessionChange { client, anew: random.u32(..20) == 0, entries }
}

/// `SAME_AS_MEMORY=100000` runs more steps.
#[tokio::test]
async fn sessions_are_the_same_as_in_memory_over_restarts_and_while_space_is_reclaimed() {
    let steps = std::env::var("SAME_AS_MEMORY").map_or(2500, |steps| steps.parse().unwrap());
    let seed = std::env::var("SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = directory();
    let open = || world_of(directory.path(), SEGMENT_BYTES).0;
    let mut pair = Pair { disk: open(), model: World::with(Box::new(Memory::new())) };
    let retention = Some(Retention { messages_max: Some(20), ..Retention::default() });
    for world in [&pair.disk, &pair.model] {
        world.create("passing", Create { retention, ..Create::open(text()) }).await.unwrap();
        world.create("kept", Create::open(text())).await.unwrap();
    }
    let (mut restarts, mut most) = (0, 0);
    for step in 0..steps {
        match random.u32(..100) {
            0..60 => pair.change(random_change(&mut random)).await,
            60..99 => {
                // Some files stay full of needed data, so that later ones are removed before them.
                let stream = if step / 40 % 4 == 0 { "kept" } else { "passing" };
                let session = (random.u32(..4) == 0).then(|| random_change(&mut random));
                pair.append(stream, session).await;
            }
            _ => {
                drop(pair.disk);
                pair.disk = open();
                restarts += 1;
                pair.compare(&format!("step {step}")).await;
            }
        }
        most = most.max(size(directory.path()));
    }
    pair.compare("at the end").await;
    println!("{steps} steps and {restarts} restarts: the same; at most {most} bytes on disk");
    assert_eq!(pair.disk.content("kept").await, pair.model.content("kept").await);
}

#[tokio::test]
async fn a_session_with_many_changes_takes_little_space() {
    let directory = directory();
    let (world, _) = world(directory.path());
    for number in 0..3000 {
        world
            .change("ada", &format!("a={number:0>400} b{}={number} -b{}", number % 7, (number + 3) % 7))
            .await;
    }
    let taken = size(directory.path());
    println!("3000 changes of a session: {taken} bytes on disk");
    assert!(taken <= 4 * u64::from(crate::directory::SEGMENT_BYTES), "{taken}");
    let before = world.session("ada").await;
    drop(world);
    assert_eq!(crate::directory::world(directory.path()).0.session("ada").await, before);
}
