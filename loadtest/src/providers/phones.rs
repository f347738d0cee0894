//! The connection of a phone to its provider, over which wakes arrive: the phone sends its address and a line feed, the provider
//! a line feed and then, for each wake, two bytes of length and the bytes that the gateway has sent.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Wakes that wait for a phone. The gateway sends no further one before the phone has polled.
const WAITING_MAX: usize = 4;

/// The phones that are attached, by address.
#[derive(Debug, Clone, Default)]
pub(super) struct Phones(Arc<Mutex<HashMap<String, mpsc::Sender<Vec<u8>>>>>);

impl Phones {
    /// Hands a wake to a phone. Like a real provider it accepts a wake for a phone that is not attached, and drops it.
    pub(super) fn wake(&self, address: &str, content: &[u8]) {
        if let Some(phone) = self.0.lock().get(address) {
            let _slow = phone.try_send(content.to_vec());
        }
    }
}

/// Accepts phones.
pub(super) async fn serve(listener: TcpListener, phones: Phones) {
    let mut attached = JoinSet::new();
    while let Ok((phone, _)) = listener.accept().await {
        while attached.try_join_next().is_some() {}
        let phones = phones.clone();
        attached.spawn(async move { drop(attend(phone, phones).await) });
    }
}

async fn attend(phone: TcpStream, phones: Phones) -> std::io::Result<()> {
    phone.set_nodelay(true)?;
    let mut phone = BufReader::new(phone);
    let mut address = String::new();
    phone.read_line(&mut address).await?;
    let (sender, mut wakes) = mpsc::channel(WAITING_MAX);
    phones.0.lock().insert(address.trim_end().to_owned(), sender);
    phone.write_all(b"\n").await?;
    while let Some(content) = wakes.recv().await {
        let mut frame = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
        frame.extend(content.into_iter().take(usize::from(u16::MAX)));
        phone.write_all(&frame).await?;
    }
    Ok(())
}

/// A phone's end of the connection.
#[derive(Debug)]
pub struct Channel<IO>(IO);

impl<IO: AsyncRead + AsyncWrite + Unpin> Channel<IO> {
    /// Attaches the phone.
    pub async fn attach(mut io: IO, address: &str) -> std::io::Result<Self> {
        io.write_all(format!("{address}\n").as_bytes()).await?;
        io.read_u8().await?;
        Ok(Self(io))
    }

    /// Waits for the next wake.
    pub async fn wake(&mut self) -> std::io::Result<()> {
        let length = self.0.read_u16().await?;
        let mut content = vec![0; usize::from(length)];
        self.0.read_exact(&mut content).await?;
        Ok(())
    }
}
