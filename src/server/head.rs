//! What the bytes of a connection say about the request that they begin: how long its head takes, and whether
//! it has two lengths.
//!
//! hyper takes `Transfer-Encoding` and forgets `Content-Length` if a request has both (RFC 9112, section 6.3,
//! allows that). A proxy before us may have read it the other way, so such a request is refused, and for that
//! the head is read along here.

use parking_lot::Mutex;

/// Shared between a connection's bytes and its service.
#[derive(Debug, Default)]
pub(super) struct HeadWatch(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    scan: Scan,
}

#[derive(Debug, Default, Clone, Copy)]
enum Phase {
    /// No byte of the next request has been read.
    #[default]
    Idle,
    /// Its head is being read.
    Head,
    /// It is being answered.
    Busy,
    /// The connection speaks HTTP no more.
    Off,
}

/// Reads a head line by line; keeps as much of a line as a field name needs.
#[derive(Debug, Default)]
struct Scan {
    line: [u8; LINE_KEPT],
    line_bytes: usize,
    content_length: bool,
    transfer_encoding: bool,
    complete: bool,
}

const CONTENT_LENGTH: &[u8] = b"content-length";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding";
const LINE_KEPT: usize = TRANSFER_ENCODING.len();

impl HeadWatch {
    /// Bytes came in. Whether they begin a head.
    pub(super) fn read(&self, bytes: &[u8]) -> bool {
        let mut state = self.0.lock();
        let begins = matches!(state.phase, Phase::Idle);
        if begins {
            *state = State { phase: Phase::Head, scan: Scan::default() };
        }
        if let Phase::Head = state.phase {
            state.scan.read(bytes);
        }
        begins
    }

    /// Whether a head has begun and is not whole yet.
    pub(super) fn is_reading(&self) -> bool {
        matches!(self.0.lock().phase, Phase::Head)
    }

    /// A request goes to the service. Whether it has two lengths, or is a chunked one whose head was not seen
    /// whole because it came behind another request.
    pub(super) fn begin(&self, is_chunked: bool) -> bool {
        let mut state = self.0.lock();
        state.phase = Phase::Busy;
        let scan = std::mem::take(&mut state.scan);
        is_chunked && !(scan.complete && scan.transfer_encoding && !scan.content_length)
    }

    /// The answer is out.
    pub(super) fn end(&self) {
        let mut state = self.0.lock();
        if let Phase::Busy = state.phase {
            state.phase = Phase::Idle;
        }
    }

    /// No more heads come: the connection speaks WebSocket from here on.
    pub(super) fn stop(&self) {
        self.0.lock().phase = Phase::Off;
    }
}

impl Scan {
    fn read(&mut self, mut bytes: &[u8]) {
        while !self.complete && !bytes.is_empty() {
            let end = memchr::memchr(b'\n', bytes);
            let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            for (kept, byte) in self.line.iter_mut().skip(self.line_bytes).zip(line) {
                *kept = *byte;
            }
            self.line_bytes = self.line_bytes.saturating_add(line.len());
            if end.is_some() {
                self.end_line();
            }
            bytes = rest.get(1..).unwrap_or_default();
        }
    }

    fn end_line(&mut self) {
        let line = self.line.get(..self.line_bytes.min(LINE_KEPT)).unwrap_or_default();
        let is = |name: &[u8]| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        self.content_length |= is(CONTENT_LENGTH);
        self.transfer_encoding |= is(TRANSFER_ENCODING);
        self.complete = matches!(line, b"" | b"\r");
        self.line_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(reads: &[&[u8]]) -> bool {
        let watch = HeadWatch::default();
        for bytes in reads {
            watch.read(bytes);
        }
        let chunked = reads.concat().to_ascii_lowercase().windows(17).any(|w| w == TRANSFER_ENCODING);
        watch.begin(chunked)
    }

    #[test]
    fn two_lengths_are_seen_in_any_order_case_and_cut() {
        let both: [&[u8]; 2] = [
            b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTRANSFER-encoding: chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\nx: y\r\ntransfer-encoding: chunked\r\ncontent-length : 5\r\n\r\n",
        ];
        for head in both {
            for cut in 0..head.len() {
                assert!(is_refused(&[&head[..cut], &head[cut..]]), "cut at {cut}");
            }
        }
    }

    #[test]
    fn one_length_is_fine() {
        assert!(!is_refused(&[
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ncontent-length: 1\r\n"
        ]));
        assert!(!is_refused(&[b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"]));
        assert!(!is_refused(&[b"GET / HTTP/1.1\r\nx-content-length: 1\r\n\r\n"]));
    }

    #[test]
    fn a_chunked_request_behind_another_one_is_refused_since_nobody_read_its_head() {
        let watch = HeadWatch::default();
        watch.read(b"GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(!watch.begin(false));
        watch.end();
        assert!(watch.begin(true));
    }

    #[test]
    fn a_head_is_read_from_its_first_byte_to_the_service() {
        let watch = HeadWatch::default();
        assert!(!watch.is_reading());
        assert!(watch.read(b"G"));
        assert!(watch.is_reading());
        assert!(!watch.read(b"E"));
        assert!(watch.is_reading());
        watch.begin(false);
        assert!(!watch.read(b"body"));
        assert!(!watch.is_reading());
    }
}
