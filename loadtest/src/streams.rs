//! The streams of a run: their names and their creation.

use tokio::task::JoinSet;

use crate::client::addressed;
use crate::dialects::{Dialect, XMPP_SERVER};
use crate::target::Target;
use crate::wire::{Dialer, WireError, XmppSocket, XmppStream, XmppUser, accepted, open, pubsub_request};

/// Number of connections that create streams.
const MAKERS: u32 = 16;

/// Returns the name of a stream of a run.
pub fn stream_name(run: u64, stream: u32) -> String {
    format!("loadtest-{run:016x}-{stream}")
}

/// Creates `streams` streams, if the server needs that. They keep the last `messages_max` messages, or all.
pub async fn create(
    target: &Target,
    run: u64,
    streams: u32,
    messages_max: Option<u32>,
) -> Result<(), WireError> {
    if target.dialect == Dialect::Xmpp {
        return create_nodes(target, run, streams).await;
    }
    let mut makers = JoinSet::new();
    for maker in 0..MAKERS.min(streams) {
        let target = target.clone();
        makers.spawn(async move {
            let Some(dialect) = target.dialect.http() else { return Ok(()) };
            let io = open(target.address).await?;
            let mut connection = Dialer::new(&target)?.start_http(io).await?;
            for stream in (maker..streams).step_by(MAKERS as usize) {
                let Some(request) = dialect.create(&stream_name(run, stream), messages_max) else {
                    return Ok(());
                };
                accepted(&connection.exchange(addressed(request, &target)?).await?)?;
            }
            Ok(())
        });
    }
    while let Some(made) = makers.join_next().await {
        made.unwrap_or(Err(WireError::Closed))?;
    }
    Ok(())
}

/// Creates the nodes of an XMPP server.
async fn create_nodes(target: &Target, run: u64, streams: u32) -> Result<(), WireError> {
    let io = open(target.address).await?;
    let mut session = XmppSocket::over(io, target, &XMPP_SERVER, XmppUser::Publisher).await?;
    session.log_in(XmppUser::Publisher).await?;
    for stream in 0..streams {
        let (id, node) = (format!("create{stream}"), stream_name(run, stream));
        let create = pubsub_request(&XMPP_SERVER, &id, &format!("<create node='{node}'/>"));
        let answer = session.ask(&create, &id).await?;
        if answer.contains("error") {
            return Err(WireError::Xmpp(answer));
        }
    }
    Ok(())
}
