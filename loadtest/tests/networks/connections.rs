//! Effects of hops that relay bytes.

use std::io::ErrorKind;
use std::time::Duration;

use loadtest::network::Profile;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use crate::ends::{Ends, MOMENT, hears, hops, is_open_and_quiet, says, says_in_vain};
use crate::world::on_time;

fn second() -> Duration {
    Duration::from_secs(1)
}

/// No hop, and every hop that relays bytes, with timeouts that do not expire.
fn carriers() -> [Profile; 6] {
    [
        Profile::none(),
        hops("{ nat-idle = { after = 20 } }"),
        hops("{ address-change = { every = 20 } }"),
        hops("{ lifetime = { after = 20 } }"),
        hops("{ slow = { bytes-per-second = 50e6, delay = 0.01 } }"),
        hops("{ nat-idle = { after = 20 } }, { lifetime = { after = 20 } }"),
    ]
}

/// 1. The client sends 1 MB and closes its sending half. 2. The server receives all of it and the end. 3. Then the server sends
/// 1 MB, which the client receives.
#[tokio::test]
async fn bytes_pass_unchanged_and_so_does_a_half_close() {
    for profile in carriers() {
        let ends = Ends::of(&profile).await;
        let mut random = fastrand::Rng::with_seed(7);
        let mut draw = || std::iter::repeat_with(|| random.u8(..)).take(1_000_000).collect::<Vec<_>>();
        let (up, down) = (draw(), draw());
        let (mut client, mut server) = ends.connect().await;
        let sends = async {
            client.write_all(&up).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let ((), heard) = tokio::join!(sends, hears(&mut server));
        assert!(heard.unwrap() == up, "{:?}: other bytes went up", profile.hops);
        let answers = async {
            server.write_all(&down).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let ((), heard) = tokio::join!(answers, hears(&mut client));
        assert!(heard.unwrap() == down, "{:?}: other bytes came down", profile.hops);
        assert_eq!((ends.middlebox.passed().connections, ends.middlebox.passed().faults), (1, 0));
    }
}

#[tokio::test]
async fn a_reset_passes_as_a_reset() {
    for profile in carriers() {
        let ends = Ends::of(&profile).await;
        let (mut client, mut server) = ends.connect().await;
        says(&mut client, &mut server).await;
        client.set_zero_linger().unwrap();
        drop(client);
        assert_eq!(hears(&mut server).await.unwrap_err().kind(), ErrorKind::ConnectionReset, "{profile:?}");
    }
}

#[tokio::test]
async fn an_unreachable_server_is_a_reset() {
    let gone = Ends::of(&Profile::none()).await.middlebox.address();
    let network = loadtest::network::Middlebox::start(&Profile::none(), crate::ends::ANY, gone).unwrap();
    let mut client = tokio::net::TcpStream::connect(network.address()).await.unwrap();
    assert_eq!(hears(&mut client).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// 1. Packets in either direction keep a connection alive beyond the timeout. 2. After a longer pause no data arrives any more,
/// and no end of the connection. 3. A new connection works.
#[tokio::test]
async fn a_nat_forgets_idle_connections_silently() {
    on_time(async || {
        let ends = Ends::of(&hops("{ nat-idle = { after = 0.5 } }")).await;
        let (mut client, mut server) = ends.connect().await;
        for _packet in 0..3 {
            sleep(second() / 4).await;
            says(&mut client, &mut server).await;
            sleep(second() / 4).await;
            says(&mut server, &mut client).await;
        }
        sleep(second() * 3 / 4).await;
        says_in_vain(&mut client, &mut server).await;
        says_in_vain(&mut server, &mut client).await;
        assert_eq!(ends.middlebox.passed().faults, 1);
        let (mut client, mut server) = ends.connect().await;
        says(&mut client, &mut server).await;
    })
    .await;
}

#[tokio::test]
async fn a_nat_can_reset_the_connections_that_it_forgets() {
    on_time(async || {
        let ends = Ends::of(&hops("{ nat-idle = { after = 0.3, ending = 'reset' } }")).await;
        let (mut client, mut server) = ends.connect().await;
        says(&mut client, &mut server).await;
        let began = Instant::now();
        assert_eq!(hears(&mut client).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(hears(&mut server).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(began.elapsed() > second() / 4, "{:?}", began.elapsed());
    })
    .await;
}

/// Even busy connections go silent.
#[tokio::test]
async fn an_address_change_silences_all_connections() {
    on_time(async || {
        let ends = Ends::of(&hops("{ address-change = { every = 1 } }")).await;
        let began = Instant::now();
        let mut old = [ends.connect().await, ends.connect().await, ends.connect().await];
        for (client, server) in &mut old {
            says(client, server).await;
        }
        sleep((second() + MOMENT).saturating_sub(began.elapsed())).await;
        let (mut client, mut server) = ends.connect().await;
        says(&mut client, &mut server).await;
        for (client, server) in &mut old {
            client.write_all(b"hello").await.unwrap();
            server.write_all(b"hello").await.unwrap();
        }
        for (client, server) in &mut old {
            tokio::join!(is_open_and_quiet(client), is_open_and_quiet(server));
        }
        assert_eq!(ends.middlebox.passed().faults, 3);
    })
    .await;
}

#[tokio::test]
async fn a_lifetime_ends_a_connection_however_busy_it_is() {
    on_time(async || {
        let ends = Ends::of(&hops("{ lifetime = { after = 0.5 } }")).await;
        let (mut client, mut server) = ends.connect().await;
        for _packet in 0..4 {
            sleep(second() / 10).await;
            says(&mut client, &mut server).await;
        }
        assert_eq!((hears(&mut client).await.unwrap(), hears(&mut server).await.unwrap()), (vec![], vec![]));
    })
    .await;
}

/// 4000 bytes at 8000 a second take half a second, and the delay is a fifth. A short message takes only the delay.
#[tokio::test]
async fn a_slow_line_limits_bandwidth_and_adds_delay() {
    on_time(async || {
        let ends = Ends::of(&hops("{ slow = { bytes-per-second = 8000, delay = 0.2 } }")).await;
        let (mut client, mut server) = ends.connect().await;
        let began = Instant::now();
        says(&mut client, &mut server).await;
        says(&mut server, &mut client).await;
        let took = began.elapsed();
        assert!((second() * 2 / 5..second()).contains(&took), "there and back in {took:?}");
        let began = Instant::now();
        client.write_all(&[7; 4000]).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(hears(&mut server).await.unwrap(), [7; 4000]);
        let took = began.elapsed();
        assert!((second() * 7 / 10..second() * 3 / 2).contains(&took), "4000 bytes in {took:?}");
    })
    .await;
}

#[tokio::test]
async fn connections_end_with_their_middlebox() {
    let ends = Ends::of(&hops("{ nat-idle = { after = 0.1 } }")).await;
    let (mut silenced, _server) = ends.connect().await;
    sleep(MOMENT * 2).await;
    let (mut client, mut server) = ends.connect().await;
    says(&mut client, &mut server).await;
    is_open_and_quiet(&mut silenced).await;
    drop(ends);
    // Each ends with FIN or RST, depending on unread bytes.
    let _ended = (hears(&mut silenced).await, hears(&mut client).await, hears(&mut server).await);
}
