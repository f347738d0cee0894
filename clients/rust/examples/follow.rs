//! Prints the messages of streams, and on standard error what happens to the connection:
//!
//! ```sh
//! cargo run --example follow -- http://127.0.0.1:4437 orders news
//! ```
//!
//! The environment variable `TOKEN` holds a bearer token, if the gateway or a proxy in front of it needs one.

use std::error::Error;

use pollgate_client::{Client, Item, Start, Token};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("usage: follow URL STREAM...")?;
    let streams: Vec<String> = arguments.collect();

    let mut builder = Client::builder(&url).on_event(|event| eprintln!("{event:?}"));
    if let Ok(token) = std::env::var("TOKEN") {
        builder = builder.token(Token::new(&token)?);
    }
    let mut subscription = builder.build()?.subscribe(streams, Start::now());
    while let Some(item) = subscription.next().await {
        match item {
            Item::Message(message) => {
                println!("{}: {}", message.stream, String::from_utf8_lossy(message.data.bytes()));
            }
            // A program that is to go on here after a restart keeps `subscription.resume_token()`.
            Item::Gap { stream, reason } => eprintln!("{stream}: messages were missed ({reason})"),
            Item::Refused(refusal) => return Err(refusal.into()),
            Item::Untrusted(error) => return Err(error.into()),
            other => eprintln!("{other:?}"),
        }
    }
    Ok(())
}
