//! What the store has taken, what publishers and readers know of it, and whether the three agree.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

/// A message: its publisher, and its number among that publisher's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Text {
    pub(super) publisher: u32,
    pub(super) number: u64,
}

/// What a reader has handled of a stream, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handled {
    Message(Text),
    /// The reader was told that messages are missing here.
    Gap,
}

/// Messages that the store has taken and that were acknowledged, by stream.
#[derive(Debug, Default)]
pub(super) struct Truth {
    stored: BTreeMap<String, Vec<Text>>,
    acknowledged: BTreeMap<String, BTreeSet<Text>>,
    /// Appends whose content is not that of messages.
    mutilated: Vec<String>,
}

impl Truth {
    /// The store has taken an append with this content, JSON values or arrays of them.
    pub(super) fn store(&mut self, stream: &str, content: &[u8]) {
        match texts(content) {
            Some(texts) => self.stored.entry(stream.to_owned()).or_default().extend(texts),
            None => self.mutilated.push(format!("{stream}: stored: {}", String::from_utf8_lossy(content))),
        }
    }

    pub(super) fn acknowledge(&mut self, stream: &str, text: Text) {
        self.acknowledged.entry(stream.to_owned()).or_default().insert(text);
    }

    /// The last message of a stream.
    pub(super) fn last(&self, stream: &str) -> Option<Text> {
        self.stored.get(stream)?.last().copied()
    }

    /// What is wrong with a stream itself.
    pub(super) fn judge(&self, stream: &str) -> Vec<String> {
        let stored = self.stored.get(stream).map(Vec::as_slice).unwrap_or_default();
        let mut wrong = self.mutilated.clone();
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        for text in stored {
            if last.insert(text.publisher, text.number).is_some_and(|before| before >= text.number) {
                wrong.push(format!("{stream}: stored twice or in another order: {text:?}"));
            }
        }
        let acknowledged = self.acknowledged.get(stream).into_iter().flatten();
        let missing = acknowledged.filter(|text| !stored.contains(text));
        wrong.extend(missing.map(|text| format!("{stream}: acknowledged and not stored: {text:?}")));
        wrong
    }

    /// What is wrong with what a reader has handled of a stream until its end.
    pub(super) fn judge_reader(&self, stream: &str, handled: &[Handled], may_have_gaps: bool) -> Vec<String> {
        let stored = self.stored.get(stream).map(Vec::as_slice).unwrap_or_default();
        let places: HashMap<_, _> = stored.iter().enumerate().map(|(place, text)| (*text, place)).collect();
        // The earliest message need not be kept any more when the reader begins.
        let (mut wrong, mut next, mut is_gap) = (Vec::new(), 0, may_have_gaps);
        for entry in handled {
            match entry {
                Handled::Gap if may_have_gaps => is_gap = true,
                Handled::Gap => wrong.push(format!("{stream}: a gap, though all messages are kept")),
                Handled::Message(text) => match places.get(text) {
                    None => wrong.push(format!("{stream}: {text:?} was never stored")),
                    Some(place) if *place < next => {
                        wrong.push(format!("{stream}: {text:?} arrived again, or behind a later one"));
                    }
                    Some(place) => {
                        if *place > next && !is_gap {
                            let lost = place - next;
                            wrong.push(format!("{stream}: {lost} messages before {text:?} never arrived"));
                        }
                        (next, is_gap) = (place + 1, false);
                    }
                },
            }
        }
        if next < stored.len() {
            wrong.push(format!("{stream}: the last {} messages never arrived", stored.len() - next));
        }
        wrong
    }
}

/// The messages in JSON values and arrays that follow each other. `None` if there is anything else.
pub(super) fn texts(content: &[u8]) -> Option<Vec<Text>> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        One(Text),
        Many(Vec<Text>),
    }
    let values = serde_json::Deserializer::from_slice(content).into_iter::<Value>();
    let mut texts = Vec::new();
    for value in values {
        match value.ok()? {
            Value::One(text) => texts.push(text),
            Value::Many(many) => texts.extend(many),
        }
    }
    Some(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(number: u64) -> Text {
        Text { publisher: 0, number }
    }

    fn truth(content: &str, acknowledged: u64) -> Truth {
        let mut truth = Truth::default();
        truth.store("s", content.as_bytes());
        (0..acknowledged).for_each(|number| truth.acknowledge("s", text(number)));
        truth
    }

    #[test]
    fn a_loss_a_repetition_and_another_order_are_told_apart_from_a_gap() {
        let truth = truth(
            r#"[{"publisher":0,"number":0},{"publisher":0,"number":1,"padding":"x"}]{"publisher":0,"number":2}"#,
            3,
        );
        let message = |number| Handled::Message(text(number));
        let judge = |handled: &[Handled]| truth.judge_reader("s", handled, true).len();
        assert_eq!(truth.judge("s"), Vec::<String>::new());
        assert_eq!(judge(&[message(0), message(1), message(2)]), 0);
        assert_eq!(judge(&[message(0), Handled::Gap, message(2)]), 0);
        assert_eq!(judge(&[message(0), message(2)]), 1, "lost");
        assert_eq!(judge(&[message(0), message(1)]), 1, "the end is lost");
        assert_eq!(judge(&[message(0), message(1), message(1), message(2)]), 1, "twice");
        assert_eq!(judge(&[message(0), message(2), message(1)]), 2, "another order");
        assert_eq!(truth.judge_reader("s", &[Handled::Gap, message(1), message(2)], false).len(), 2);
    }

    #[test]
    fn a_store_that_loses_or_repeats_is_found() {
        let one = r#"{"publisher":0,"number":0}"#;
        assert_eq!(truth(one, 2).judge("s").len(), 1);
        assert_eq!(truth(&format!("[{one},{one}]"), 1).judge("s").len(), 1);
    }
}
