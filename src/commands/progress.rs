//! What long commands show while they run, on standard error, if that is a terminal.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep};

/// How often a command shows that it is alive.
const TICK: Duration = Duration::from_millis(100);

/// Begins to show what the command does, without a measure of it.
pub(super) fn spinner(what: &'static str) -> ProgressBar {
    with_template(ProgressBar::new_spinner(), "{spinner} {msg}", what)
}

/// Begins to show how many bytes of `total` are done; without a total, how many.
pub(super) fn bytes(total: Option<u64>, what: &'static str) -> ProgressBar {
    match total {
        Some(total) => {
            let template = "{bar:40} {msg}: {decimal_bytes} of {decimal_total_bytes}, {eta} left";
            with_template(ProgressBar::new(total), template, what)
        }
        None => {
            let template = "{spinner} {msg}: {decimal_bytes}, {decimal_bytes_per_sec}";
            with_template(ProgressBar::new_spinner(), template, what)
        }
    }
}

/// Begins to show how many messages of standard input are done, unless somebody types them.
pub(super) fn messages(what: &'static str) -> ProgressBar {
    if io::stdin().is_terminal() {
        return ProgressBar::hidden();
    }
    with_template(ProgressBar::new_spinner(), "{spinner} {msg}: {human_pos} messages, {per_sec}", what)
}

/// Shows how much of the expected time has passed while `work` is under way.
pub(super) async fn with_time<T>(expected: Duration, what: &'static str, work: impl Future<Output = T>) -> T {
    let bar = with_template(ProgressBar::new(expected.as_secs()), "{bar:40} {msg}", what);
    let began = Instant::now();
    let ticks = async {
        loop {
            bar.set_position(began.elapsed().as_secs());
            sleep(Duration::from_millis(500)).await;
        }
    };
    let done = tokio::select! {
        done = work => done,
        never = ticks => never,
    };
    bar.finish_and_clear();
    done
}

fn with_template(bar: ProgressBar, template: &str, what: &'static str) -> ProgressBar {
    // The default style shows the same in other words.
    let bar = match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    };
    let bar = bar.with_message(what);
    bar.enable_steady_tick(TICK);
    bar
}
