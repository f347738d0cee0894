//! Memory that a slow reader costs, of the gateway and of the kernel.

use tokio::process::Command;

use super::{READERS, Slow, until_all_are_full};
use crate::world::{Form, Gateway, Kind, Publisher, alone, until};

const KIB: u64 = 1024;
const USER_BYTES_MAX: u64 = 64 * KIB;
const KERNEL_BYTES_MAX: u64 = 128 * KIB;

/// Bytes in the send buffer of each of the gateway's connections, and the buffer's limit (ss(8), `skmem`).
async fn send_buffers(gateway: &Gateway) -> Vec<(u64, u64)> {
    let port = gateway.address.port().to_string();
    let output =
        Command::new("ss").args(["-Htmn", "state", "established", "sport", "=", &port]).output().await;
    let text = String::from_utf8(output.expect("ss of iproute2 runs").stdout).expect("UTF-8");
    let number = |field: &str| {
        let digits = field.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        digits.parse().expect("a number")
    };
    let buffers = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_once("skmem:(")?.1.split(',').collect();
        let named = |name: &str| {
            let is_it = |field: &&&str| {
                field.strip_prefix(name).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            };
            number(fields.iter().find(is_it).expect("ss knows it"))
        };
        Some((named("w"), named("tb")))
    });
    buffers.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_keeps_little_memory_busy_in_every_form() {
    let _alone = alone().await;
    for (form, kind) in Form::LIVE.into_iter().flat_map(|form| [(form, Kind::Text), (form, Kind::Binary)]) {
        let gateway = Gateway::start(&[]).await;
        let mut publisher = Publisher::create(&gateway, "s", kind).await;
        for _ in 0..200 {
            publisher.append(vec![b'x'; 5_000]).await;
        }
        let before = gateway.memory_bytes();
        let mut slow = Vec::new();
        for _ in 0..READERS {
            slow.push(Slow::start(&gateway, &publisher, form, "-1").await);
        }
        until_all_are_full(&gateway).await;
        // Memory that encoding has freed returns to the system within a second or two.
        let user = || gateway.memory_bytes().saturating_sub(before) / READERS as u64;
        until("the readers keep little memory busy", async || user() <= USER_BYTES_MAX).await;
        let user = user();
        let buffers = send_buffers(&gateway).await;
        let readers: Vec<_> = buffers.iter().filter(|(queued, _)| *queued > 0).collect();
        assert_eq!(readers.len(), READERS, "{form:?}: each is full: {buffers:?}");
        let kernel = readers.iter().map(|(queued, _)| *queued).max().unwrap();
        let allowed = readers.iter().map(|(_, allowed)| *allowed).max().unwrap();
        println!(
            "{form:?} {kind:?}: {user} bytes of user memory a slow reader, {kernel} of {allowed} in the kernel at most"
        );
        assert!(kernel <= KERNEL_BYTES_MAX && allowed <= KERNEL_BYTES_MAX, "{form:?}: {kernel} of {allowed}");
        slow.into_iter().for_each(Slow::was_served);
    }
}
