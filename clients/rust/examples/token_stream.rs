//! Prints an answer that a language model writes to a stream, token by token. After a restart it goes on at the exact token:
//!
//! ```sh
//! cargo run --example token_stream -- http://127.0.0.1:4437 answers/17 answer.txt
//! ```
//!
//! Each message of the stream is a token, a JSON string. The stream is closed at the end of the answer.

use std::error::Error;
use std::io::{ErrorKind, Write};
use std::{fs, io};

use pollgate_client::{Client, Item, Offset, Start};

/// What has been read, and the offset behind it.
#[derive(Default)]
struct Answer {
    offset: Option<Offset>,
    text: String,
}

impl Answer {
    /// Loads an answer that an earlier run has saved: a line with the offset, and the text.
    fn load(path: &str) -> Result<Self, Box<dyn Error>> {
        let saved = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            saved => saved?,
        };
        let (offset, text) = saved.split_once('\n').ok_or("the file has no offset")?;
        Ok(Self { offset: Some(offset.parse()?), text: text.to_owned() })
    }

    /// Saves offset and text in one step: a run that is killed leaves the file before it or after it.
    fn save(&self, path: &str) -> io::Result<()> {
        let Some(offset) = self.offset else { return Ok(()) };
        let new_path = format!("{path}.new");
        fs::write(&new_path, format!("{offset}\n{}", self.text))?;
        fs::rename(new_path, path)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, stream, path] = arguments.as_slice() else {
        return Err("usage: token_stream URL STREAM FILE".into());
    };

    let mut answer = Answer::load(path)?;
    print_now(&answer.text)?;
    let start = answer.offset.map_or_else(Start::earliest, Start::at);
    let mut subscription = Client::new(url)?.subscribe([stream.as_str()], start);
    while let Some(item) = subscription.next().await {
        match item {
            Item::Message(message) => {
                let token: String = serde_json::from_slice(message.data.bytes())?;
                answer.text.push_str(&token);
                answer.offset = message.offset;
                answer.save(path)?;
                print_now(&token)?;
            }
            // The answer is complete.
            Item::Closed { .. } => break,
            Item::Gap { reason, .. } => return Err(format!("tokens are no longer kept: {reason}").into()),
            Item::Refused(refusal) => return Err(refusal.into()),
            Item::Untrusted(error) => return Err(error.into()),
            // The answer has not begun.
            _ => {}
        }
    }
    println!();
    Ok(())
}

fn print_now(text: &str) -> io::Result<()> {
    print!("{text}");
    io::stdout().flush()
}
