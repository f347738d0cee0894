//! The verdict of a comparison: what differs between the strategies, in a few sentences.

use std::time::Duration;

use super::columns::{COLUMNS, Column, radio};
use crate::data::{DayRow, Report, Run, SimulatedDay};
use crate::matrix::{Row, Rows};
use crate::model::recommend::time;
use crate::table;

/// Costs of a simulated day that differ by less than this share are alike.
const ALIKE: f64 = 0.05;

/// What a user of a phone takes for at once.
const PROMPT: Duration = Duration::from_secs(10);

/// Returns the verdict; `None` if there is nothing to compare.
pub fn verdict(report: &Report) -> Option<String> {
    let mut sentences = Vec::new();
    sentences.extend(report.day.as_ref().and_then(verdict_of_day));
    sentences.extend(on_the_server(report));
    sentences.extend(lost(report));
    (!sentences.is_empty()).then(|| sentences.join(" "))
}

/// What a simulated day says about the battery.
pub fn verdict_of_day(day: &SimulatedDay) -> Option<String> {
    let mut rows: Vec<(&DayRow, f64, f64)> = day.rows.iter().filter_map(figures).collect();
    rows.sort_by(|(_, a, _), (_, b, _)| a.total_cmp(b));
    let prompt: Vec<_> = rows.iter().filter(|(_, _, p95)| *p95 <= PROMPT.as_secs_f64()).copied().collect();
    let (_, least, _) = prompt.first()?;
    let best: Vec<_> = prompt.iter().filter(|(_, battery, _)| *battery <= least * (1.0 + ALIKE)).collect();
    let names = names(best.iter().map(|(row, ..)| row.strategy.clone()));
    let slowest = best.iter().map(|(.., p95)| *p95).fold(0.0, f64::max);
    let verb = if best.len() == 1 { "takes" } else { "take" };
    let between = text(day.seconds_between_messages);
    let mut sentence = format!(
        "On a simulated day with a message every {between}, {names} {verb} the least of a phone's battery, {}, if messages are to \
         arrive within {} (95 of 100 do within {})",
        percent(*least),
        time(PROMPT),
        text(slowest)
    );
    if let Some((row, most, _)) = rows.last().filter(|(_, most, _)| *most > least * 1.5) {
        sentence += &format!("; {} takes {}", row.strategy, percent(*most));
    }
    if let Some((row, battery, p95)) = rows.first().filter(|(.., p95)| *p95 > PROMPT.as_secs_f64()) {
        sentence += &format!(
            ". With {}, {} would be enough, and messages arrive within {}",
            row.strategy,
            percent(*battery),
            text(*p95)
        );
    }
    Some(sentence + ".")
}

/// What survives hostile networks.
pub fn verdict_of_networks(rows: &Rows) -> Option<String> {
    let mut readers: Vec<&str> = Vec::new();
    for row in &rows.rows {
        if !readers.contains(&row.reader.as_str()) {
            readers.push(&row.reader);
        }
    }
    let of = |reader: &str| rows.rows.iter().filter(move |row| row.reader == reader).collect::<Vec<_>>();
    let is_whole =
        |row: &Row| row.deliveries.delivered > 0 && row.deliveries.lost + row.deliveries.doubled == 0;
    let networks = of(readers.first()?).len();
    let whole = readers.iter().filter(|reader| of(reader).iter().all(|row| is_whole(row)));
    let whole: Vec<_> = whole.map(|reader| (*reader).to_owned()).collect();
    let broken = readers.iter().filter(|reader| !whole.iter().any(|whole| whole == *reader)).map(|reader| {
        let broken: Vec<_> =
            of(reader).into_iter().filter(|row| !is_whole(row)).map(|row| row.network.as_str()).collect();
        format!("{reader} behind {} of them ({})", broken.len(), broken.join(", "))
    });
    let broken: Vec<_> = broken.collect();
    let mut sentence = match whole.len() {
        0 => format!("No reader got each message once behind all {networks} networks"),
        _ => format!("Behind all {networks} networks, {} got each message once", names(whole.into_iter())),
    };
    if !broken.is_empty() {
        sentence += &format!("; messages were lost or came twice with {}", broken.join(", with "));
    }
    Some(sentence + ".")
}

/// Returns the share of the battery and the 95th percentile of the delay, if the strategy delivered everything.
fn figures(row: &DayRow) -> Option<(&DayRow, f64, f64)> {
    let [_, p95, _] = row.delays.filter(|_| row.is_whole())?;
    Some((row, row.battery?, p95))
}

/// What the measured runs say about the server.
fn on_the_server(report: &Report) -> Option<String> {
    let radio = radio(report);
    let runs: Vec<_> = report.runs.iter().filter(|run| run.deliveries.are_comparable()).collect();
    if runs.len() < 2 {
        return None;
    }
    if runs.iter().all(|run| run.bands.is_empty()) {
        return Some(
            "Each strategy was measured once, so the figures of the server are no ranking (--repeat 3)."
                .to_owned(),
        );
    }
    let of = |key: &str, what: &str| {
        let column = COLUMNS.iter().find(|column| column.key == key)?;
        let best: Vec<_> =
            runs.iter().copied().filter(|run| run.best.iter().any(|best| best == key)).collect();
        let figure = |run: &&Run| (column.pick)(run, &radio);
        let (least, most) = (
            best.iter().filter_map(figure).reduce(f64::min),
            runs.iter().filter_map(figure).reduce(f64::max),
        );
        match best.len() {
            0 => Some(format!("no strategy is told from the others by its {what}")),
            _ => Some(format!(
                "{} {} the least {what} ({} for a client, at most {})",
                names(best.iter().map(|run| table::name(run))),
                if best.len() == 1 { "takes" } else { "take" },
                with_unit(column, least?),
                with_unit(column, most?)
            )),
        }
    };
    let parts: Vec<_> = [of("cpu", "processor time"), of("memory", "memory")].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("Of the server, as measured here, {}.", parts.join(", and ")))
}

fn with_unit(column: &Column, figure: f64) -> String {
    let unit = if column.key == "cpu" { "us a second" } else { "KiB" };
    format!("{} {unit}", (column.write)(figure))
}

/// Names what is left out of every ranking.
fn lost(report: &Report) -> Option<String> {
    let lost = report.runs.iter().filter(|run| !run.deliveries.are_comparable());
    let lost: Vec<_> = lost
        .map(|run| {
            format!("{} (lost {} of {})", table::name(run), run.deliveries.lost, run.deliveries.intended)
        })
        .collect();
    (!lost.is_empty()).then(|| format!("Left out, because they lost messages: {}.", lost.join(", ")))
}

fn names(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn text(seconds: f64) -> String {
    time(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::columns::mark_best;
    use crate::report::fixture;

    #[test]
    fn the_cheapest_of_the_day_that_is_prompt_is_named_with_its_price() {
        let verdict = verdict_of_day(&fixture::day()).unwrap();
        assert_eq!(
            verdict,
            "On a simulated day with a message every 10 min, websocket and long-poll:240s take the least of a phone's battery, 1.3 %, \
             if messages are to arrive within 10 s (95 of 100 do within 119 ms); sse takes 16.4 %. With short-poll:300s, 0.9 % would \
             be enough, and messages arrive within 4.8 min."
        );
    }

    #[test]
    fn what_delivers_nothing_is_never_the_best() {
        let mut day = fixture::day();
        for row in &mut day.rows {
            if row.strategy == "websocket" {
                (row.lost, row.delays, row.battery) = (row.published, None, Some(0.0));
            }
        }
        assert!(!verdict_of_day(&day).unwrap().contains("websocket"));
        day.rows.iter_mut().for_each(|row| row.lost = 1);
        assert_eq!(verdict_of_day(&day), None);
        let mut report = fixture::report();
        report.runs.truncate(2);
        for run in &mut report.runs {
            run.deliveries.delivered = 0;
            run.deliveries.lost = run.deliveries.intended;
        }
        report.day = None;
        let verdict = verdict(&report).unwrap();
        assert_eq!(
            verdict,
            "Left out, because they lost messages: short-poll:1s (lost 800 of 800), short-poll:5s (lost 800 of 800)."
        );
    }

    #[test]
    fn readers_that_lose_behind_a_network_are_named_with_it() {
        assert_eq!(
            verdict_of_networks(&fixture::networks()).unwrap(),
            "Behind all 5 networks, short-poll, long-poll and fallback got each message once; messages were lost or came twice with \
             sse behind 1 of them (nat-idle), with websocket behind 1 of them (proxy-buffer)."
        );
    }

    #[test]
    fn ranges_that_overlap_are_ties() {
        let mut report = fixture::report();
        let band = |least, greatest| crate::data::Band { least, greatest };
        report.runs.truncate(3);
        for (run, band) in report.runs.iter_mut().zip([band(9.0, 11.0), band(10.0, 14.0), band(12.0, 13.0)]) {
            run.best.clear();
            run.bands = [("cpu".to_owned(), band)].into();
        }
        mark_best(&mut report.runs);
        let best: Vec<_> = report.runs.iter().map(|run| run.best.len()).collect();
        assert_eq!(best, [1, 1, 0]);
        // All alike: none is the best.
        report.runs.truncate(2);
        report.runs.iter_mut().for_each(|run| run.best.clear());
        mark_best(&mut report.runs);
        assert!(report.runs.iter().all(|run| run.best.is_empty()));
        report.day = None;
        assert!(
            verdict(&report).unwrap().contains("no strategy is told from the others by its processor time")
        );
    }
}
