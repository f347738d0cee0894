//! How `sub` prints items of a subscription: a line for each message.

use std::fmt::Write as _;
use std::io::{self, Write};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use pollgate_client::{Data, Item, Message};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

/// How messages are printed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines {
    /// Lines of JSON, for programs.
    pub(crate) json: bool,
    /// Each line begins with the name of its stream.
    pub(crate) named: bool,
    /// A person reads them: what would control the terminal is escaped.
    pub(crate) to_terminal: bool,
}

impl Lines {
    /// Writes an item. Only as JSON, items that are not messages are written, too.
    pub(crate) fn write(self, out: &mut impl Write, item: &Item) -> io::Result<()> {
        if self.json {
            return json_line(item)?.map_or(Ok(()), |line| writeln!(out, "{line}"));
        }
        let Item::Message(message) = item else { return Ok(()) };
        if self.named {
            write!(out, "{}\t", message.stream)?;
        }
        match &message.data {
            Data::Json(value) => out.write_all(one_line(value.get()).as_bytes())?,
            // The text of several appends may come at once, and its own ends of lines belong to it.
            Data::Text(text) if self.to_terminal => out.write_all(escaped(text).as_bytes())?,
            Data::Text(text) => out.write_all(text.as_bytes())?,
            Data::Binary(bytes) => out.write_all(BASE64_STANDARD.encode(bytes).as_bytes())?,
        }
        if !matches!(&message.data, Data::Text(text) if text.ends_with('\n')) {
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// What is said of an item that is not a message, to a person.
    pub(crate) fn remark(item: &Item) -> Option<String> {
        match item {
            Item::Gap { stream, reason } => Some(format!("{stream}: messages were missed ({reason})")),
            Item::Missing { stream } => Some(format!("{stream}: does not exist; waiting for it")),
            Item::Forbidden { stream } => Some(format!("{stream}: the token does not grant it")),
            Item::Closed { stream } => Some(format!("{stream}: closed")),
            _ => None,
        }
    }
}

/// A JSON string without control characters as its text, any other value as JSON in one line.
fn one_line(json: &str) -> String {
    match serde_json::from_str::<String>(json) {
        Ok(text) if !text.chars().any(char::is_control) => text,
        _ => in_one_line(json),
    }
}

/// Ends of lines in JSON are white space between its parts.
fn in_one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

/// Text whose control characters are escaped, except for ends of lines and tabs.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && !matches!(character, '\n' | '\t') {
            // Writing to a string does not fail.
            let _written = write!(escaped, "{}", character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// An item as a line of JSON.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonLine<'a> {
    stream: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Timestamp>,
    /// A JSON value as it was written, so that numbers keep their digits, or text.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    missing: bool,
    #[serde(skip_serializing_if = "is_false")]
    forbidden: bool,
    #[serde(skip_serializing_if = "is_false")]
    closed: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn json_line(item: &Item) -> serde_json::Result<Option<String>> {
    let line = match item {
        Item::Message(Message { stream, data, offset, time }) => {
            let (data, base64) = match data {
                Data::Json(value) => (Some(RawValue::from_string(in_one_line(value.get()))?), None),
                Data::Text(text) => (Some(to_raw_value(text)?), None),
                Data::Binary(bytes) => (None, Some(BASE64_STANDARD.encode(bytes))),
            };
            let time = time.and_then(|time| Timestamp::try_from(time).ok());
            let offset = offset.map(|offset| offset.to_string());
            JsonLine { stream, offset, time, data, base64, ..JsonLine::default() }
        }
        Item::Gap { stream, reason } => JsonLine { stream, gap: Some(reason), ..JsonLine::default() },
        Item::Missing { stream } => JsonLine { stream, missing: true, ..JsonLine::default() },
        Item::Forbidden { stream } => JsonLine { stream, forbidden: true, ..JsonLine::default() },
        Item::Closed { stream } => JsonLine { stream, closed: true, ..JsonLine::default() },
        _ => return Ok(None),
    };
    serde_json::to_string(&line).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(lines: Lines, data: Data) -> String {
        let message = Message { stream: "s".into(), data, offset: None, time: None };
        let mut out = Vec::new();
        lines.write(&mut out, &Item::Message(message)).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn json(text: &str) -> Data {
        Data::Json(serde_json::value::RawValue::from_string(text.to_owned()).unwrap())
    }

    const PLAIN: Lines = Lines { json: false, named: false, to_terminal: false };

    #[test]
    fn each_message_is_one_line_whatever_its_publisher_wrote() {
        for (value, line) in [
            (r#""hello""#, "hello\n"),
            (r#""two\nlines""#, "\"two\\nlines\"\n"),
            (r#""\u001b[31mred""#, "\"\\u001b[31mred\"\n"),
            ("{\"n\":\n1}", "{\"n\": 1}\n"),
            ("1.50", "1.50\n"),
        ] {
            assert_eq!(printed(PLAIN, json(value)), line);
        }
        assert_eq!(printed(PLAIN, Data::Binary(vec![0, 255].into())), "AP8=\n");
        assert_eq!(printed(Lines { named: true, ..PLAIN }, json("1")), "s\t1\n");
        assert_eq!(
            printed(Lines { json: true, ..PLAIN }, json("{\"n\":\n1.50}")),
            "{\"stream\":\"s\",\"data\":{\"n\": 1.50}}\n"
        );
    }

    #[test]
    fn text_keeps_its_lines_and_does_not_control_a_terminal() {
        let text = || Data::Text("a\tb\n\u{1b}[31mred".to_owned());
        assert_eq!(printed(PLAIN, text()), "a\tb\n\u{1b}[31mred\n");
        assert_eq!(printed(Lines { to_terminal: true, ..PLAIN }, text()), "a\tb\n\\u{1b}[31mred\n");
    }
}
