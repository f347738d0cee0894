//! The gateway that a client's command talks to.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use pollgate_client::{Builder, Client, Token};
use tokio::time::timeout;

use super::options::GatewayArgs;

/// The gateway has not answered in time.
#[derive(Debug)]
pub(crate) struct NoGateway {
    pub(super) url: String,
    pub(super) limit: Duration,
}

impl fmt::Display for NoGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, limit } = self;
        write!(f, "no gateway has answered at {url} within {limit:?}; --url names another one")
    }
}

impl Error for NoGateway {}

/// Begins to build the client for a gateway.
pub(crate) fn builder(args: &GatewayArgs) -> Result<Builder, Box<dyn Error>> {
    let mut builder = Client::builder(&args.url);
    if let Some(file) = &args.ca {
        let pem = std::fs::read(file).map_err(|error| of_file(file, &error))?;
        builder = builder.root_certificates(pem);
    }
    if let Some(file) = args.token_file.clone() {
        read_token(&file)?;
        return Ok(builder.token(Token::fetched_by(move || {
            let token = read_token(&file);
            async move { token }
        })));
    }
    match std::env::var("POLLGATE_TOKEN") {
        Ok(token) => Ok(builder.token(Token::new(token.trim())?)),
        Err(_) => Ok(builder),
    }
}

/// Builds the client for a gateway, with default settings.
pub(crate) fn client(args: &GatewayArgs) -> Result<Client, Box<dyn Error>> {
    Ok(builder(args)?.build()?)
}

/// Waits for the answer of the gateway, which the client asks until it answers.
pub(crate) async fn answered<T, E>(
    args: &GatewayArgs,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, Box<dyn Error>>
where
    E: Error + 'static,
{
    let limit = args.timeout.get();
    match timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(NoGateway { url: args.url.clone(), limit }.into()),
    }
}

/// The token of the options, read now. `None`: there is none.
pub(super) fn token(args: &GatewayArgs) -> Result<Option<String>, String> {
    match &args.token_file {
        Some(file) => read_token(file).map(Some),
        None => Ok(std::env::var("POLLGATE_TOKEN").ok().map(|token| token.trim().to_owned())),
    }
}

fn read_token(file: &Path) -> Result<String, String> {
    let token = std::fs::read_to_string(file).map_err(|error| of_file(file, &error))?;
    Ok(token.trim().to_owned())
}

fn of_file(file: &Path, error: &dyn fmt::Display) -> String {
    format!("{}: {error}", file.display())
}
