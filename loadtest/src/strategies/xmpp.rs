//! XMPP over WebSocket (RFC 7395) and over BOSH (XEP-0124): a subscription to the node of the stream (XEP-0060).

use std::convert::Infallible;

use crate::client::Client;
use crate::wire::{BoshSession, WireError, XmppService, XmppSocket, XmppStream, XmppUser};

/// Follows the node of the client's stream until the server closes. What is published between two connections is lost.
pub(super) async fn read_websocket(client: &mut Client) -> Result<(), WireError> {
    let service = service_of(client)?;
    client.meter.request();
    let io = client.open(client.target.address).await?;
    let mut socket = XmppSocket::over(io, &client.target, service, XmppUser::Anonymous).await?;
    let jid = socket.log_in(XmppUser::Anonymous).await?;
    socket.subscribe(service, &client.stream, &jid).await?;
    client.started().await;
    while let Some(text) = socket.next().await? {
        receive(client, &text);
    }
    Ok(())
}

/// Follows the node of the client's stream by requests that wait at the server, each followed by the next at once.
pub(super) async fn read_bosh(client: &mut Client) -> Result<Infallible, WireError> {
    let service = service_of(client)?;
    let mut session = BoshSession::new(client, service).await?;
    let jid = session.log_in(XmppUser::Anonymous).await?;
    session.subscribe(service, &client.stream, &jid).await?;
    client.started().await;
    loop {
        let text = session.send("", "").await?;
        if !receive(client, &text) {
            client.meter.empty_answer();
        }
    }
}

fn service_of(client: &Client) -> Result<&'static XmppService, WireError> {
    client.target.dialect.xmpp().ok_or_else(|| WireError::Xmpp("this server has no XMPP".to_owned()))
}

/// Records the messages in a text of the server. Some servers write quotation marks as entities.
fn receive(client: &Client, text: &str) -> bool {
    client.receive(text.replace("&quot;", "\"").as_bytes())
}
