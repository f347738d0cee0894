//! The fake of a message centre for SMS: the part of SMPP 3.4 that a sender needs.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::phones::Phones;

/// Command ids (section 5.1.2.1).
const RESPONSE: u32 = 0x8000_0000;
const SUBMIT_SM: u32 = 0x04;
const BIND_TRANSCEIVER: u32 = 0x09;
const UNBIND: u32 = 0x06;
const ENQUIRE_LINK: u32 = 0x15;

/// Length, command, status and sequence number.
const HEADER_BYTES: u32 = 16;

/// Longer packets are not SMPP.
const PACKET_BYTES_MAX: u32 = 64 << 10;

/// Accepts the gateway's connections.
pub(super) async fn serve(listener: TcpListener, phones: Phones) {
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let phones = phones.clone();
        connections.spawn(async move { drop(attend(connection, phones).await) });
    }
}

async fn attend(mut connection: TcpStream, phones: Phones) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    loop {
        let length = connection.read_u32().await?;
        let [command, _, sequence] =
            [connection.read_u32().await?, connection.read_u32().await?, connection.read_u32().await?];
        if !(HEADER_BYTES..=PACKET_BYTES_MAX).contains(&length) {
            return Ok(());
        }
        let mut body = vec![0; (length - HEADER_BYTES) as usize];
        connection.read_exact(&mut body).await?;
        let response: &[u8] = match command {
            BIND_TRANSCEIVER => b"smsc\0",
            SUBMIT_SM => {
                if let Some((number, content)) = submission(&body) {
                    phones.wake(&number, content);
                }
                b"id-1\0"
            }
            ENQUIRE_LINK | UNBIND => b"",
            _ => continue,
        };
        let mut packet = Vec::new();
        let length = HEADER_BYTES + response.len() as u32;
        for word in [length, RESPONSE | command, 0, sequence] {
            packet.extend(word.to_be_bytes());
        }
        packet.extend(response);
        connection.write_all(&packet).await?;
    }
}

/// Returns the number and the octets of a submission (section 4.4.1).
fn submission(body: &[u8]) -> Option<(String, &[u8])> {
    // The service type, then type, plan and text of the sender, then type and plan of the receiver.
    let (_, rest) = text(body)?;
    let (_, rest) = text(rest.get(2..)?)?;
    let (number, rest) = text(rest.get(2..)?)?;
    // Class, protocol and priority, then two times, then registration, replacement, coding and a number.
    let (_, rest) = text(rest.get(3..)?)?;
    let (_, rest) = text(rest)?;
    let (length, content) = rest.get(4..)?.split_first()?;
    let number = String::from_utf8(number.to_vec()).ok()?;
    Some((number, content.get(..usize::from(*length))?))
}

/// Splits a text that ends with a zero from what follows.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_and_the_octets_of_a_submission_are_found() {
        let (sender, receiver) = (&b"\x05\0POLL\0"[..], b"\x01\x0131600000007\0");
        let (schedule, validity) = (b"\0", b"000000010000000R\0");
        let parts = [b"\0", sender, receiver, b"\0\0\0", schedule, validity, b"\x01\0\0\0", b"\x04news"];
        let mut body = parts.concat();
        let expected = ("31600000007".to_owned(), &b"news"[..]);
        assert_eq!(submission(&body), Some(expected));
        body.pop();
        assert_eq!(submission(&body), None, "cut off");
    }
}
