//! Fuzzes XMPP streams. The first byte of an input is the size of the pieces in which the rest arrives. However it is cut, it
//! brings the same elements, each of which is the same after it was written, and a login takes them without a panic.

use fastrand::Rng;

use super::login::{Login, LoginStep};
use super::sasl::SaslError;
use crate::fuzz::{Target, Verdict, fuzz};
use crate::xmpp::jid::Jid;
use crate::xmpp::payload::Published;
use crate::xmpp::stanza::Stanza;
use crate::xmpp::xml::{StreamDecoder, StreamEvent, parse_document, to_bytes};

/// Larger than any input.
const BYTES_MAX: usize = 64 * 1024;

#[test]
fn xmpp_streams() {
    let target = Target {
        name: "xmpp_stream",
        seeds: seeds(),
        words: &[
            b"<a>",
            b"</a>",
            b"<a/>",
            b" xmlns='jabber:client'",
            b" xmlns:x='y'",
            b"x:",
            b"xml:lang='de'",
            b"&amp;",
            b"&#9;",
            b"&#0;",
            b"<![CDATA[",
            b"]]>",
            b"<!--",
            b"<?xml version='1.0'?>",
            b"<!DOCTYPE a [",
            "ä".as_bytes(),
            &[0xff],
            b" mechanism='OAUTHBEARER'",
            b"biwsAWF1dGg9QmVhcmVyIHQBAQ==",
        ],
        mend: |bytes, _: &mut Rng| bytes,
        inputs: 20_000,
        allocated_max: (512 * 1024, 2000),
    };
    fuzz(&target, |input| {
        let Some((size, bytes)) = input.split_first() else { return Verdict::Refused };
        let whole = events(bytes, bytes.len().max(1));
        assert_eq!(events(bytes, usize::from(*size).max(1)), whole);
        let (events, is_broken) = whole;
        let mut login = Login::new(Jid::parse("b.example").expect("an address"), None, true);
        let mut has_ended = false;
        for event in &events {
            let StreamEvent::Stanza(element) = event else { continue };
            let written = to_bytes(element);
            assert_eq!(parse_document(&written, 20 * BYTES_MAX).as_ref(), Ok(element), "{written:?}");
            let _either = Published::of(element);
            let _either = Stanza::read(element.clone());
            if !has_ended {
                let step = match login.handle(element.clone()) {
                    LoginStep::Verify(_) if bytes.len() % 2 == 0 => login.verified(Ok(())),
                    LoginStep::Verify(_) => login.verified(Err(SaslError::NotAuthorized)),
                    step => step,
                };
                has_ended = matches!(step, LoginStep::Bound(..) | LoginStep::End(..));
            }
        }
        if is_broken || events.is_empty() { Verdict::Refused } else { Verdict::Accepted }
    });
}

/// The events of a stream that arrives in pieces, and whether it is broken behind them.
fn events(bytes: &[u8], size: usize) -> (Vec<StreamEvent>, bool) {
    let (mut decoder, mut found) = (StreamDecoder::new(BYTES_MAX), Vec::new());
    for mut piece in bytes.chunks(size) {
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(event)) => found.push(event),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

fn seeds() -> Vec<Vec<u8>> {
    let header = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='b.example'>";
    let bodies = [
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFubmEAdG9rZW4=</auth>\n<iq id='1' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>x</resource></bind></iq>",
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='OAUTHBEARER'/><response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>biwsAWF1dGg9QmVhcmVyIHQBAQ==</response>",
        "<iq id='1' type='set'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='a'><item id='i'><json xmlns='urn:xmpp:json:0'>{}</json></item></publish></pubsub></iq>",
        "<m xmlns='urn:pollgate:0' type='text/plain' encoding='base64'>AAEC</m> <presence type='unavailable'/><message type='error' id='1'><body>ä &lt; b</body></message></stream:stream>",
    ];
    let seed = |(index, body): (usize, &str)| {
        let size = u8::try_from(index * 7 + 1).unwrap_or(1);
        [&[size], header.as_bytes(), body.as_bytes()].concat()
    };
    bodies.into_iter().enumerate().map(seed).collect()
}
