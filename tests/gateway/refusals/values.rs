//! Parameters and header fields with invalid values.

use super::{Fixture, JSON, TEXT};
use crate::world::{delete, get, post, put, request};

/// Texts that are not valid whole numbers.
const NO_NUMBERS: [&str; 14] = [
    "",
    "-1",
    "1.5",
    "1e3",
    "0x10",
    "01",
    "9007199254740992",
    "18446744073709551616",
    "99999999999999999999999999",
    "ten",
    "1,2",
    "1;2",
    "NaN",
    "--1",
];

#[tokio::test]
async fn an_offset_that_the_gateway_never_gave_is_refused_by_every_form() {
    let fixture = Fixture::start().await;
    let tail = &fixture.tails[0];
    let (epoch, position) = tail.split_once('_').unwrap();
    let behind_the_tail = format!("{epoch}_{:016x}", u64::from_str_radix(position, 16).unwrap() + 1);
    let (longer, shorter, greatest) = (format!("{tail}0"), &tail[1..], format!("{epoch}_{}", "f".repeat(16)));
    let offsets = [
        "",
        "0",
        "-2",
        "--1",
        "Now",
        "_",
        "0_0",
        "-1%00",
        "now%0d%0a",
        "%2e%2e",
        "-1,now",
        "null",
        "1e9",
        &behind_the_tail,
        &greatest,
        &longer,
        shorter,
    ];
    for offset in offsets {
        for live in ["", "&live=long-poll&timeout=0", "&live=sse"] {
            fixture.refuses(get(format!("{TEXT}?offset={offset}{live}")), 400, "offset").await;
        }
    }
    fixture.is_untouched().await;
}

#[tokio::test]
async fn an_offset_of_an_earlier_epoch_gets_410_with_the_offset_to_continue_from() {
    let fixture = Fixture::start().await;
    fixture.gateway.send(put("/v1/stream/reborn").text("old")).await.expect(201);
    let old = fixture.gateway.send(get("/v1/stream/reborn")).await.expect(200).next_offset();
    fixture.gateway.send(delete("/v1/stream/reborn")).await.expect(204);
    fixture.gateway.send(put("/v1/stream/reborn").text("new and longer")).await.expect(201);
    for live in ["", "&live=long-poll", "&live=sse"] {
        let answer = fixture.refuses(get(format!("/v1/stream/reborn?offset={old}{live}")), 410, "gap").await;
        assert_eq!(answer.header("stream-gap"), "reason=epoch");
        let earliest = answer.header("stream-earliest-offset");
        let rest = fixture.gateway.send(get(format!("/v1/stream/reborn?offset={earliest}"))).await;
        assert_eq!(rest.expect(200).text(), "new and longer");
    }
    fixture.gateway.send(delete("/v1/stream/reborn")).await.expect(204);
    fixture.is_untouched().await;
}

#[tokio::test]
async fn an_invalid_number_is_refused_in_every_parameter_and_field() {
    let fixture = Fixture::start().await;
    for number in NO_NUMBERS {
        let poll = format!("{TEXT}?offset=-1&live=long-poll&timeout={number}");
        fixture.refuses(get(poll), 400, "malformed").await;
        let events = format!("{TEXT}?offset=-1&live=sse&heartbeat={number}");
        fixture.refuses(get(events), 400, "malformed").await;
        // A cursor is opaque, so a leading zero is accepted.
        if number != "01" {
            let poll = format!("{TEXT}?offset=-1&live=long-poll&cursor={number}");
            fixture.refuses(get(poll), 400, "malformed").await;
        }
        for name in ["stream-ttl", "stream-max-messages", "stream-max-bytes", "stream-max-age"] {
            fixture.refuses(put("/v1/stream/new").header(name, number), 400, "malformed").await;
        }
        for (epoch, sequence) in [(number, "0"), ("0", number)] {
            let append = post(TEXT).text("x").header("producer-id", "p");
            let append = append.header("producer-epoch", epoch).header("producer-seq", sequence);
            fixture.refuses(append, 400, "malformed").await;
        }
    }
    for name in ["stream-max-messages", "stream-max-bytes", "stream-max-age"] {
        fixture.refuses(put("/v1/stream/new").header(name, "0"), 400, "malformed").await;
    }
    for create in ["", "2", "01", "true", "1%00"] {
        let append = post(format!("/v1/stream/new?create={create}")).text("x");
        fixture.refuses(append, 400, "malformed").await;
    }
    for time in ["", "tomorrow", "2026-13-01T00:00:00Z", "2026-01-01", "1767225600"] {
        let create = put("/v1/stream/new").header("stream-expires-at", time);
        fixture.refuses(create, 400, "malformed").await;
    }
    fixture.is_untouched().await;
}

#[tokio::test]
async fn contradictory_and_incomplete_header_fields_are_refused() {
    let fixture = Fixture::start().await;
    let both =
        put("/v1/stream/new").header("stream-ttl", 60).header("stream-expires-at", "2100-01-01T00:00:00Z");
    fixture.refuses(both, 400, "malformed").await;
    let producer = [("producer-id", "p"), ("producer-epoch", "0"), ("producer-seq", "0")];
    for left_out in producer {
        let given = producer.into_iter().filter(|field| *field != left_out);
        let append = given.fold(post(TEXT).text("x"), |append, (name, value)| append.header(name, value));
        fixture.refuses(append, 400, "malformed").await;
    }
    for (name, value) in [("stream-fork-offset", "-1"), ("stream-fork-sub-offset", "1")] {
        fixture.refuses(put("/v1/stream/new").header(name, value), 400, "malformed").await;
    }
    for live in ["long-poll", "sse"] {
        fixture.refuses(get(format!("{TEXT}?live={live}")), 400, "malformed").await;
    }
    fixture.is_untouched().await;
}

#[tokio::test]
async fn duplicate_parameters_and_fields_are_refused_even_if_equal() {
    let fixture = Fixture::start().await;
    let live = "offset=-1&live=long-poll&timeout=0";
    for again in ["offset=-1", "live=long-poll", "timeout=0", "cursor=1&cursor=1", "client=a&client=a"] {
        fixture.refuses(get(format!("{TEXT}?{live}&{again}")), 400, "malformed").await;
    }
    let events = format!("{TEXT}?offset=-1&live=sse&heartbeat=5&heartbeat=5");
    fixture.refuses(get(events), 400, "malformed").await;
    fixture.refuses(post("/v1/stream/new?create=1&create=1").text("x"), 400, "malformed").await;
    for (name, value) in [
        ("content-type", "text/plain"),
        ("stream-ttl", "60"),
        ("stream-expires-at", "2100-01-01T00:00:00Z"),
        ("stream-max-messages", "5"),
        ("stream-forked-from", TEXT),
        ("stream-closed", "true"),
    ] {
        let create = put("/v1/stream/new").header(name, value).header(name, value);
        fixture.refuses(create, 400, "malformed").await;
    }
    for name in ["producer-id", "producer-epoch", "producer-seq", "stream-seq", "stream-closed"] {
        let append = post(JSON).json("1").header(name, "1").header(name, "2");
        fixture.refuses(append, 400, "malformed").await;
    }
    fixture.is_untouched().await;
}

#[tokio::test]
async fn an_unknown_form_and_an_unknown_method_are_refused_with_the_known_ones() {
    let fixture = Fixture::start().await;
    for live in ["", "websockets", "SSE", "long_poll", "true", "sse%00"] {
        fixture.refuses(get(format!("{TEXT}?offset=-1&live={live}")), 400, "malformed").await;
    }
    for method in ["BREW", "get", "PROPFIND"] {
        fixture.refuses(request(method, TEXT), 501, "method").await;
    }
    for method in ["PATCH", "TRACE"] {
        let answer = fixture.refuses(request(method, TEXT), 405, "method").await;
        assert_eq!(answer.header("allow"), "GET, HEAD, POST, PUT, DELETE, OPTIONS");
    }
    fixture.is_untouched().await;
}
