//! The `Date` of an answer (RFC 9110, section 5.6.7), formatted once a second.

use std::cell::Cell;
use std::fmt::{self, Write};
use std::time::{Duration, SystemTime};

use httpdate::HttpDate;

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
const BYTES: usize = 29;

thread_local! {
    /// The last second that this thread was asked for, and its text.
    static LAST: Cell<(Duration, [u8; BYTES])> = const { Cell::new((Duration::MAX, [0; BYTES])) };
}

/// The text of a time of day.
pub(super) fn text(now: SystemTime) -> [u8; BYTES] {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let second = Duration::from_secs(since.as_secs());
    let (last, text) = LAST.get();
    if last == second {
        return text;
    }
    let mut text = Text { bytes: [b' '; BYTES], written: 0 };
    // It is exactly as long.
    let _written = write!(text, "{}", HttpDate::from(now));
    LAST.set((second, text.bytes));
    text.bytes
}

struct Text {
    bytes: [u8; BYTES],
    written: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.written + text.len();
        self.bytes.get_mut(self.written..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.written = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_own_text() {
        for (seconds, expected) in
            [(784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"), (784_111_778, "Sun, 06 Nov 1994 08:49:38 GMT")]
        {
            let now = SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 999);
            assert_eq!((text(now), text(now)), (*expected.as_bytes().first_chunk().unwrap(), text(now)));
        }
    }
}
