//! Cases that follow from the grammar of server-sent events.

use bytes::Bytes;

use super::{Case, Kind};
use crate::world::Gateway;

/// Texts that a careless encoder would turn into fields, events or comments of its own.
const TEXTS: [&str; 32] = [
    "\n",
    "\r",
    "\r\n",
    "\n\n",
    "\r\r",
    "\n\r",
    "\r\n\r\n",
    "a\n\nb",
    "a\r\rb",
    "a\r\n\r\nb",
    "\n\n\n\n",
    "a\n",
    "\na",
    " a",
    "  a",
    "\n a",
    "\r\n  a\r\n",
    "\u{feff}a",
    "\0",
    "a\0b",
    "data:",
    "data: x\n\n",
    "\nevent: control\n",
    "\n\nevent: control\ndata: {\"streamNextOffset\":\"evil\"}\n\n",
    "\r\revent: control\rdata: {}\r\r",
    "id: 7",
    "\nid: 7\n\n",
    "retry: 1",
    "\nretry: 1\n\n",
    ": comment\n\n",
    ":",
    "\u{2028}\u{2029}\u{85}",
];

#[tokio::test]
async fn text_that_looks_like_events_arrives_as_text() {
    let gateway = Gateway::start(&[]).await;
    let mut case = Case::new(&gateway, Kind::Text).await;
    for text in TEXTS {
        case.arrives(&[Bytes::from(text)], &[]).await;
        case.arrives(&[], &[Bytes::from(text)]).await;
        case.arrives(
            &[Bytes::from("before"), Bytes::from(text)],
            &[Bytes::from(text), Bytes::from("behind")],
        )
        .await;
    }
}

#[tokio::test]
async fn json_with_dangerous_strings_and_white_space_arrives_unchanged() {
    let gateway = Gateway::start(&[]).await;
    let mut case = Case::new(&gateway, Kind::Json).await;
    for text in TEXTS {
        let text = serde_json::to_string(text).unwrap();
        let value = format!("{{{text}:[{text},1]}}");
        // Line breaks are white space in JSON, so an encoder that passes the bytes on must handle them.
        let spread = format!("\r\n[\n\n{{\r{text}\r\r:\n[\r\n {text}\n,\r 1]}}\r\n\r\n,\n 2\n]\n\n");
        case.arrives(&[Bytes::from(value)], &[Bytes::from(spread)]).await;
    }
}

#[tokio::test]
async fn bytes_arrive_as_they_are() {
    let gateway = Gateway::start(&[]).await;
    let mut case = Case::new(&gateway, Kind::Binary).await;
    for text in TEXTS {
        case.arrives(&[Bytes::from(text)], &[Bytes::from(text)]).await;
    }
    let all: Bytes = (0..=255).collect();
    case.arrives(std::slice::from_ref(&all), &[all.slice(..1), all.slice(254..)]).await;
}

#[tokio::test]
async fn a_character_that_comes_in_two_appends_arrives_whole() {
    let gateway = Gateway::start(&[]).await;
    let mut case = Case::new(&gateway, Kind::Text).await;
    let text = Bytes::from("aé…🦀z");
    for cut in 1..text.len() {
        let halves = [text.slice(..cut), text.slice(cut..)];
        case.arrives(&halves, &[]).await;
        case.arrives(&halves[..1], &halves[1..]).await;
        case.arrives(&[], &halves).await;
    }
    let bytes: Vec<Bytes> = text.chunks(1).map(Bytes::copy_from_slice).collect();
    case.arrives(&bytes, &[]).await;
    case.arrives(&[], &bytes).await;
}

#[tokio::test]
async fn a_line_break_that_comes_in_two_appends_is_still_a_line_break() {
    let gateway = Gateway::start(&[]).await;
    let mut case = Case::new(&gateway, Kind::Text).await;
    let halves = [Bytes::from("a\r"), Bytes::from("\nb")];
    case.arrives(&halves, &[]).await;
    case.arrives(&halves[..1], &halves[1..]).await;
}

#[tokio::test]
async fn invalid_utf_8_is_read_as_replacement_characters() {
    let gateway = Gateway::start(&[]).await;
    let mut case = Case::new(&gateway, Kind::Text).await;
    let texts: [&'static [u8]; 12] = [
        b"\xff",
        b"a\xffb",
        b"\xc3",
        b"\xc3(",
        b"\xe2\x82",
        b"\xe2\x82a",
        b"\xf0\x9f\xa6",
        b"\xed\xa0\x80",
        b"\xc0\xae",
        b"\xf4\x90\x80\x80",
        b"\x80\x80\x80\x80",
        b"\xc3\n\n\xa9",
    ];
    for text in texts {
        let appends = [Bytes::from_static(text), Bytes::from_static(b"z")];
        case.arrives(&appends[..1], &[]).await;
        case.arrives(&[], &appends[..1]).await;
        case.arrives(&appends, &[]).await;
    }
}
