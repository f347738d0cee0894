//! A small client of NATS: `CONNECT`, `SUB`, `PUB`, and the answers to `PING`, over a connection or inside of a WebSocket's frames
//! (docs.nats.io/reference/reference-protocols/nats-protocol).

use std::str;

use super::WireError;

/// Opens a session that is told of errors only. A `PING` after it makes the server answer when it has taken what precedes it.
pub(crate) const CONNECT: &str =
    "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"rust\",\"version\":\"0\",\"protocol\":1}\r\n";
pub(crate) const PING: &str = "PING\r\n";
pub(crate) const PONG: &str = "PONG\r\n";

/// Most bytes of an operation that is not complete.
const OPERATION_MAX: usize = 2 * 1024 * 1024;

/// Subscribes to a subject.
pub(crate) fn subscribe(subject: &str) -> String {
    format!("SUB {subject} 1\r\n")
}

/// Publishes a message to a subject.
pub(crate) fn publish(subject: &str, message: &str) -> String {
    format!("PUB {subject} {}\r\n{message}\r\n", message.len())
}

/// An operation of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// It describes itself.
    Info,
    /// It wants a `PONG`.
    Ping,
    /// It has taken all that precedes the client's `PING`.
    Pong,
    /// A message of a subscription.
    Message(Vec<u8>),
}

/// Parses operations incrementally.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    rest: Vec<u8>,
}

impl Operations {
    /// Takes further bytes.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.rest.extend_from_slice(bytes);
        let is_bounded = self.rest.len() <= OPERATION_MAX;
        is_bounded.then_some(()).ok_or_else(|| WireError::Nats("an operation without end".to_owned()))
    }

    /// Returns the next complete operation; `None` if more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Operation>, WireError> {
        let Some(end) = memchr::memmem::find(&self.rest, b"\r\n") else { return Ok(None) };
        let line = self.rest.get(..end).unwrap_or_default();
        let invalid = || WireError::Nats(String::from_utf8_lossy(line).into_owned());
        let text = str::from_utf8(line).map_err(|_| invalid())?;
        let (operation, length) = match text.split_ascii_whitespace().next() {
            Some("INFO") => (Operation::Info, end + 2),
            Some("PING") => (Operation::Ping, end + 2),
            Some("PONG") => (Operation::Pong, end + 2),
            Some("MSG") => {
                let bytes: usize =
                    text.rsplit(' ').next().and_then(|bytes| bytes.parse().ok()).ok_or_else(invalid)?;
                let begin = end + 2;
                let after = begin.checked_add(bytes).ok_or_else(invalid)?;
                let Some(message) = self.rest.get(begin..after) else { return Ok(None) };
                if self.rest.len() < after + 2 {
                    return Ok(None);
                }
                (Operation::Message(message.to_vec()), after + 2)
            }
            _ => return Err(invalid()),
        };
        self.rest.drain(..length);
        Ok(Some(operation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_parsed_however_their_bytes_are_split() {
        let text = b"INFO {\"a\":1}\r\nPING\r\nMSG news 1 7\r\none\r\ntw\r\nMSG news 1 reply 0\r\n\r\nPONG\r\nMSG news 1 4\r\ncut";
        for size in 1..text.len() {
            let (mut operations, mut all) = (Operations::default(), Vec::new());
            for chunk in text.chunks(size) {
                operations.read(chunk).unwrap();
                while let Some(operation) = operations.next().unwrap() {
                    all.push(operation);
                }
            }
            let message = |text: &str| Operation::Message(text.as_bytes().to_vec());
            let whole =
                [Operation::Info, Operation::Ping, message("one\r\ntw"), message(""), Operation::Pong];
            assert_eq!(all, whole, "chunks of {size}");
        }
    }

    #[test]
    fn an_error_of_the_server_ends_the_session() {
        let mut operations = Operations::default();
        operations.read(b"-ERR 'Authorization Violation'\r\n").unwrap();
        assert!(matches!(operations.next(), Err(WireError::Nats(text)) if text.contains("Violation")));
    }
}
