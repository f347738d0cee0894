//! A bind to a message centre that the test plays, on a paused clock.

use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

use super::*;

/// A message centre, with the wakes that are submitted to it.
struct Centre {
    stream: DuplexStream,
    received: Vec<u8>,
    wakes: mpsc::Sender<Waiting>,
    bind: JoinHandle<bool>,
    receipts: mpsc::Receiver<Receipt>,
}

impl Centre {
    /// Accepts a bind with this status.
    async fn start(code: u32) -> Self {
        let (stream, of_gateway) = tokio::io::duplex(64 * 1024);
        let (wakes, mut waiting) = mpsc::channel(WAITING_MAX);
        let (receipts, arrived) = mpsc::channel(1);
        let bind = tokio::spawn(async move {
            let [system_id, password, source] = ["gw", "pw", "POLL"].map(str::to_owned);
            let content = SmsContent::Text("poll".to_owned());
            let settings = SmscSettings { address: String::new(), system_id, password, source, content };
            let mut bind = Bind::new(&settings, &receipts, Clock::start());
            matches!(bind.serve(of_gateway, &mut waiting).await, Ended::Refused(Verdict::Config(_)))
        });
        let mut centre = Self { stream, received: Vec::new(), wakes, bind, receipts: arrived };
        let asked = centre.next().await;
        assert_eq!((asked.command, asked.sequence), (command::BIND_TRANSCEIVER, 1));
        assert_eq!(asked.body, b"gw\0pw\0\0\x34\0\0\0");
        centre.answer(&asked, code, b"smsc\0").await;
        centre
    }

    async fn next(&mut self) -> Pdu {
        loop {
            if let Some(pdu) = Pdu::take(&mut self.received).unwrap() {
                return pdu;
            }
            let mut buffer = [0; 1024];
            let count = self.stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the gateway has gone");
            self.received.extend_from_slice(&buffer[..count]);
        }
    }

    async fn answer(&mut self, asked: &Pdu, code: u32, body: &[u8]) {
        let (command, sequence) = (asked.command | command::RESPONSE, asked.sequence);
        self.send(&Pdu { command, status: code, sequence, body: body.to_vec() }).await;
    }

    async fn send(&mut self, pdu: &Pdu) {
        self.stream.write_all(&pdu.encode()).await.unwrap();
    }

    /// Orders a wake for a number.
    async fn wake(&self, number: u32) -> oneshot::Receiver<Verdict> {
        let content = SmsOctets { data_coding: 0, esm_class: 0, octets: b"poll".to_vec() };
        let (source, number) = ("POLL".to_owned(), format!("+3160000000{number}"));
        let (answer, verdict) = oneshot::channel();
        let submission = Submission { source, number, content, ttl: Duration::from_secs(60) };
        self.wakes.send(Waiting { submission, answer }).await.unwrap();
        verdict
    }
}

use pdu::SmsOctets;

/// The last digit of the number that a submission is for.
fn number(pdu: &Pdu) -> char {
    assert_eq!(pdu.command, command::SUBMIT_SM);
    let text = String::from_utf8_lossy(&pdu.body).into_owned();
    text.split("3160000000").nth(1).unwrap().chars().next().unwrap()
}

#[tokio::test(start_paused = true)]
async fn wakes_are_submitted_in_order_and_the_answer_has_the_id() {
    let mut centre = Centre::start(status::OK).await;
    let verdicts = [centre.wake(1).await, centre.wake(2).await];
    let asked = [centre.next().await, centre.next().await];
    assert_eq!([number(&asked[0]), number(&asked[1])], ['1', '2']);
    // Responses may come in any order.
    centre.answer(&asked[1], status::OK, b"id-2\0").await;
    centre.answer(&asked[0], status::OK, b"id-1\0").await;
    for (verdict, id) in verdicts.into_iter().zip(["id-1", "id-2"]) {
        assert_eq!(verdict.await, Ok(Verdict::Ok { id: Some(id.into()) }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wake_without_a_response_counts_as_sent_and_is_not_sent_again() {
    let mut centre = Centre::start(status::OK).await;
    let (begun, verdict) = (Instant::now(), centre.wake(1).await);
    centre.next().await;
    assert_eq!(verdict.await, Ok(Verdict::Ok { id: None }));
    assert_eq!(begun.elapsed(), RESPONSE_TIME);
    let next = centre.next().await;
    assert_eq!(next.command, command::ENQUIRE_LINK, "nothing is submitted again");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_counts_submitted_wakes_as_sent() {
    let mut centre = Centre::start(status::OK).await;
    let verdict = centre.wake(1).await;
    centre.next().await;
    drop(centre.stream);
    assert_eq!(verdict.await, Ok(Verdict::Ok { id: None }));
}

#[tokio::test(start_paused = true)]
async fn throttling_pauses_the_whole_bind_so_that_no_wake_overtakes_another() {
    let mut centre = Centre::start(status::OK).await;
    let throttled = centre.wake(1).await;
    let asked = centre.next().await;
    centre.answer(&asked, status::THROTTLED, b"").await;
    assert!(matches!(throttled.await, Ok(Verdict::Slow { .. })));
    let begun = Instant::now();
    let (_second, _third) = (centre.wake(2).await, centre.wake(3).await);
    assert_eq!(number(&centre.next().await), '2');
    assert!(begun.elapsed() >= THROTTLE_PAUSE);
    assert_eq!(number(&centre.next().await), '3');
}

#[tokio::test(start_paused = true)]
async fn each_status_has_its_verdict() {
    let mut centre = Centre::start(status::OK).await;
    for (code, word) in [
        (status::OK, "ok"),
        (status::SYSTEM_ERROR, "retry"),
        (status::SUBMIT_FAILED, "retry"),
        // Invalid destination, invalid source, invalid message class.
        (0x0b, "bad"),
        (0x0a, "bad"),
        (0xff, "bad"),
        (status::QUEUE_FULL, "slow"),
    ] {
        let verdict = centre.wake(1).await;
        let asked = centre.next().await;
        centre.answer(&asked, code, b"\0").await;
        assert_eq!(verdict.await.unwrap().as_str(), word, "{code:#x}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_a_fault_of_the_settings() {
    let centre = Centre::start(0x0e).await;
    assert!(centre.bind.await.unwrap());
    for code in [status::SYSTEM_ERROR, status::ALREADY_BOUND] {
        assert_eq!(bind_verdict(code).as_str(), "retry");
    }
}

#[tokio::test(start_paused = true)]
async fn receipts_questions_and_unknown_requests_are_answered() {
    let mut centre = Centre::start(status::OK).await;
    for (command, answered) in [
        (command::DELIVER_SM, command::DELIVER_SM_RESP),
        (command::ENQUIRE_LINK, command::ENQUIRE_LINK_RESP),
        // alert_notification
        (0x102, command::GENERIC_NACK),
        (command::UNBIND, command::UNBIND_RESP),
    ] {
        centre.send(&Pdu::empty(command, 77)).await;
        if command == command::UNBIND {
            break;
        }
        let answer = centre.next().await;
        assert_eq!((answer.command, answer.sequence), (answered, 77));
    }
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_there_is_no_room_for_is_asked_for_again() {
    let mut centre = Centre::start(status::OK).await;
    for (sequence, code) in [(1, status::OK), (2, status::QUEUE_FULL)] {
        let mut body = b"\0\x01\x0131600000001\0\x05\0POLL\0\x04\0\0\0\0\0\0\0\0\x0c".to_vec();
        body.extend_from_slice(b"stat:EXPIRED");
        centre.send(&Pdu { body, ..Pdu::empty(command::DELIVER_SM, sequence) }).await;
        let answer = centre.next().await;
        assert_eq!(
            (answer.command, answer.sequence, answer.status),
            (command::DELIVER_SM_RESP, sequence, code)
        );
    }
    let receipt = centre.receipts.recv().await.unwrap();
    assert_eq!((receipt.number.as_str(), receipt.state.as_str()), ("+31600000001", "expired"));
}

#[tokio::test(start_paused = true)]
async fn no_more_submissions_are_under_way_than_the_window_has() {
    let mut centre = Centre::start(status::OK).await;
    let mut verdicts = Vec::new();
    for wake in 0..WINDOW as u32 + 5 {
        verdicts.push(centre.wake(wake % 10).await);
    }
    let mut asked = Vec::new();
    for _ in 0..WINDOW {
        asked.push(centre.next().await);
    }
    let more = timeout(Duration::from_secs(1), centre.next()).await;
    assert!(more.is_err(), "{more:?}");
    centre.answer(&asked[0], status::OK, b"1\0").await;
    assert_eq!(centre.next().await.command, command::SUBMIT_SM);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let settings = |text: &str, source: &str| {
        let [address, system_id, password, source] = ["a:1", "gw", "pw", source].map(str::to_owned);
        Smsc::new(SmscSettings {
            address,
            system_id,
            password,
            source,
            content: SmsContent::Text(text.to_owned()),
        })
    };
    assert!(settings("poll", "POLL").is_ok());
    assert!(settings(&"x".repeat(161), "POLL").is_err());
    assert!(settings("poll", "a name that is too long").is_err());
    let shown = format!("{:?}", settings("poll", "POLL").unwrap().settings);
    assert!(!shown.contains("pw"), "{shown}");
}
