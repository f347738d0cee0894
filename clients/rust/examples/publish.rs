//! Publishes each line of standard input, a JSON value, as a message:
//!
//! ```sh
//! seq 1 1000 | cargo run --example publish -- http://127.0.0.1:4437 orders
//! ```

use std::error::Error;

use pollgate_client::Client;
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (url, stream) = arguments.next().zip(arguments.next()).ok_or("usage: publish URL STREAM")?;

    let producer = Client::new(&url)?.producer(&stream, "application/json");
    let mut publishes = JoinSet::new();
    for line in std::io::stdin().lines() {
        // What is published before the first acknowledgement goes out together.
        publishes.spawn(producer.publish(line?));
    }
    while let Some(published) = publishes.join_next().await {
        published??;
    }
    Ok(())
}
