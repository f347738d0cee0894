//! Both ends of a connection through a middlebox, as raw sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use loadtest::network::{Middlebox, Profile};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Longer than any operation on loopback, shorter than the timeouts of the test networks.
pub(crate) const MOMENT: Duration = Duration::from_millis(150);

/// Hang detector.
pub(crate) const HANGS: Duration = Duration::from_secs(60);

pub(crate) const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A network in front of the test's own server.
pub(crate) struct Ends {
    pub(crate) middlebox: Middlebox,
    server: TcpListener,
}

/// Builds a profile from one line of TOML.
pub(crate) fn hops(hops: &str) -> Profile {
    let text = format!("[[network]]\nname = 'of-the-test'\nsource = ''\nhops = [{hops}]");
    text.parse::<loadtest::network::Profiles>().unwrap().get("of-the-test").unwrap()
}

impl Ends {
    pub(crate) async fn of(profile: &Profile) -> Self {
        let server = TcpListener::bind(ANY).await.unwrap();
        let middlebox = Middlebox::start(profile, ANY, server.local_addr().unwrap()).unwrap();
        Self { middlebox, server }
    }

    /// Opens a connection and returns the client's and the server's end.
    pub(crate) async fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.middlebox.address()).await.unwrap();
        (client, self.server.accept().await.unwrap().0)
    }

    /// Opens a connection through a proxy, and upgrades it with the given request and response.
    pub(crate) async fn connect_upgraded(&self, asks: &str, answers: &str) -> (TcpStream, TcpStream) {
        let mut client = TcpStream::connect(self.middlebox.address()).await.unwrap();
        client.write_all(asks.as_bytes()).await.unwrap();
        let mut server = self.server.accept().await.unwrap().0;
        expect(&mut server, asks).await;
        server.write_all(answers.as_bytes()).await.unwrap();
        expect(&mut client, answers).await;
        (client, server)
    }
}

/// Sends bytes from one end and expects them at the other.
pub(crate) async fn says(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"hello").await.unwrap();
    expect(to, "hello").await;
}

/// Reads as many bytes as `text` has, which must be those.
pub(crate) async fn expect(end: &mut TcpStream, text: &str) {
    let mut heard = vec![0; text.len()];
    timeout(HANGS, end.read_exact(&mut heard)).await.expect("nothing came in a minute").unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), text);
}

/// Sends bytes from one end, which succeeds, and expects that the other end receives nothing and stays open.
pub(crate) async fn says_in_vain(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"hello").await.unwrap();
    is_open_and_quiet(to).await;
}

pub(crate) async fn is_open_and_quiet(end: &mut TcpStream) {
    let read = timeout(MOMENT, end.read(&mut [0; 64])).await;
    assert!(read.is_err(), "not quiet: {read:?}");
}

/// Reads everything until the end of the connection.
pub(crate) async fn hears(end: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    timeout(HANGS, end.read_to_end(&mut all)).await.expect("no end in a minute")?;
    Ok(all)
}
