//! The recommendation as text: the answer in a sentence, the table, and why not the others.

use std::fmt;
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::{Choice, Cost, Other, Promise, Recommendation, Source};

/// What the columns of the table and the words of the text mean.
const LEGEND: &str = "\
cost the same: within 3 %; arrives within: 95 of 100 messages, from publishing to the app, with the time in which a sleeping radio wakes up
battery: what the radio takes of a battery (4000 mAh, 3.85 V) in a day for this alone; requests/h and kB/h: of one client in an hour
gateway: requests a second, open connections and memory for all clients
figures: measured (a run on a machine), simulated (the real code on a simulated clock and network), or predicted (formulas,
docs/design/cost-model.md, with the timeouts of src/model/networks.toml and the radios of src/model/radios.toml). What the gateway
needs is predicted from these and from the memory that one connection was measured to take (src/model/server_load.toml).";

/// Returns the question in one sentence.
pub(super) fn question(promise: &Promise) -> String {
    let network = promise.path().network.name;
    let path =
        if network == "none" { "a direct connection".to_owned() } else { format!("the path {network}") };
    let origin = promise.origin.map_or_else(String::new, |interval| {
        format!(", which the gateway gets from an HTTP API that it polls every {}", time(interval))
    });
    format!(
        "{} clients with {} radio, {} to each{origin}, over {path}; 95 of 100 must arrive within {}.",
        thousands(f64::from(promise.clients)),
        with_article(&promise.radio.name),
        messages(promise.rate),
        time(promise.p95)
    )
}

/// Returns the answer in one sentence.
pub(super) fn verdict(promise: &Promise, recommendation: &Recommendation) -> String {
    let Some(best) = recommendation.kept.first() else {
        return format!(
            "No strategy keeps this promise: 95 of 100 messages within {} over this path.",
            time(promise.p95)
        );
    };
    let alike: Vec<_> = recommendation
        .kept
        .iter()
        .take(recommendation.alike)
        .map(|choice| choice.strategy.as_str())
        .collect();
    let names = match alike.split_last() {
        Some((last, rest)) if !rest.is_empty() => {
            format!("{} or {last}, which cost the same", rest.join(", "))
        }
        _ => best.strategy.clone(),
    };
    let how = match best.source {
        Source::Predicted => "by formula",
        Source::Simulated => "in simulation",
        Source::Measured => "as measured",
    };
    let mut facts = vec![format!("95 of 100 messages arrive within {}", time(best.figures.p95))];
    facts.extend(
        battery(best, &promise.radio.name)
            .map(|battery| format!("it takes {battery} of a phone's battery a day")),
    );
    format!("Use {names}: {}; {how}, {}.", best.description, facts.join(" and "))
}

fn with_article(name: &str) -> String {
    // LTE is spelled out.
    let article = if name.starts_with("LTE") || name.starts_with(['A', 'E', 'I', 'O']) { "an" } else { "a" };
    format!("{article} {name}")
}

/// Says how much dearer a choice is than the best one.
pub(super) fn cost_in_words(promise: &Promise, choice: &Choice, best: &Choice) -> String {
    let radio = &promise.radio.name;
    if choice.strategy == "sms" {
        return "each SMS costs money".to_owned();
    }
    match promise.cheapest_by {
        Cost::Energy => {
            let [own, least] = [choice, best].map(|choice| battery(choice, radio));
            match own.zip(least) {
                Some((own, least)) => format!("it takes {own} of the battery a day instead of {least}"),
                None => "its energy is not known".to_owned(),
            }
        }
        Cost::Requests => {
            let [own, least] = [choice, best].map(|choice| choice.figures.requests_per_client_hour);
            format!("it sends {} requests an hour instead of {}", thousands(own), thousands(least))
        }
        Cost::Bytes => {
            let [own, least] = [choice, best].map(|choice| bytes(choice.figures.bytes_per_client_hour));
            format!("it takes {own} an hour instead of {least}")
        }
    }
}

impl fmt::Display for Recommendation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\n{}", self.verdict, self.question)?;
        if !self.kept.is_empty() {
            writeln!(f, "\n{}\n{LEGEND}", table(self))?;
            writeln!(f, "\nSettings:")?;
            for choice in self.kept.iter().take(self.alike) {
                writeln!(f, "- {}: {}", choice.strategy, choice.reasons.join("; "))?;
            }
        }
        if !self.others.is_empty() {
            writeln!(f, "\nWhy not the others, and what would change that:")?;
        }
        for Other { strategy, keeps, reason, works_with, best_with } in &self.others {
            let verb = if *keeps { ":" } else { " is out:" };
            let change = match (works_with, best_with) {
                (_, Some(best)) if *keeps || works_with.as_ref() == Some(best) => {
                    format!("It is the best with {best}")
                }
                (Some(works), Some(best)) => {
                    format!("It keeps the promise with {works}, and is the best with {best}")
                }
                (Some(works), None) => format!("It keeps the promise with {works}"),
                (None, _) if *keeps => "No single option makes it the best".to_owned(),
                (None, _) => "No single option changes that".to_owned(),
            };
            writeln!(f, "- {strategy}{verb} {reason}. {change}.")?;
        }
        Ok(())
    }
}

fn table(recommendation: &Recommendation) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    let has_api = recommendation.kept.iter().any(|choice| choice.api_requests_per_second.is_some());
    let headers = [
        "strategy",
        "arrives within",
        "battery",
        "requests/h",
        "kB/h",
        "gateway: requests/s",
        "connections",
        "memory",
    ];
    let further = ["API: requests/s"].into_iter().filter(|_| has_api).chain(["figures"]);
    table.set_header(headers.into_iter().chain(further));
    for choice in &recommendation.kept {
        let server = &choice.server;
        let cells = [
            choice.strategy.clone(),
            time(choice.figures.p95),
            battery(choice, &recommendation.radio).unwrap_or_else(|| "-".to_owned()),
            thousands(choice.figures.requests_per_client_hour),
            format!("{:.1}", choice.figures.bytes_per_client_hour / 1000.0),
            thousands(server.requests_per_second),
            thousands(server.sockets),
            server.memory_bytes.map_or_else(|| "-".to_owned(), bytes),
        ];
        let api = choice.api_requests_per_second.map(thousands).or_else(|| has_api.then(String::new));
        table.add_row(cells.into_iter().chain(api).chain([choice.source.to_string()]));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn battery(choice: &Choice, radio: &str) -> Option<String> {
    let share = 100.0 * choice.figures.of_radio(radio)?.battery_per_day;
    Some(match share {
        share if share < 0.095 => "less than 0.1 %".to_owned(),
        share if share < 1.0 => format!("{share:.2} %"),
        share if share < 10.0 => format!("{share:.1} %"),
        share => format!("{share:.0} %"),
    })
}

/// Formats a time with the unit that fits.
pub(crate) fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 0.9995 => format!("{} ms", short(seconds * 1e3)),
        seconds if seconds < 120.0 => format!("{} s", short(seconds)),
        seconds if seconds < 7200.0 => format!("{} min", short(seconds / 60.0)),
        seconds => format!("{} h", short(seconds / 3600.0)),
    }
}

/// Formats seconds as the time of `--rate '1 per TIME'`.
pub(super) fn period(seconds: f64) -> String {
    match seconds {
        86_400.0 => "day".to_owned(),
        3600.0 => "hour".to_owned(),
        60.0 => "min".to_owned(),
        1.0 => "s".to_owned(),
        seconds => time(Duration::from_secs_f64(seconds)),
    }
}

fn messages(rate: f64) -> String {
    if rate > 1.0 {
        format!("{} messages a second", short(rate))
    } else if rate > 0.0 {
        match period(rate.recip().round()).as_str() {
            "day" => "a message a day".to_owned(),
            "s" => "a message a second".to_owned(),
            "min" => "a message a minute".to_owned(),
            other => format!("a message every {other}"),
        }
    } else {
        "no message".to_owned()
    }
}

/// Formats with two or three digits.
fn short(figure: f64) -> String {
    let text = if figure < 9.995 { format!("{figure:.1}") } else { format!("{figure:.0}") };
    text.trim_end_matches(".0").to_owned()
}

/// Formats a count with a space between thousands.
pub(crate) fn thousands(figure: f64) -> String {
    if figure < 9.995 {
        return short(figure);
    }
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn bytes(bytes: f64) -> String {
    match bytes {
        bytes if bytes < 1e6 => format!("{} kB", short(bytes / 1e3)),
        bytes if bytes < 1e9 => format!("{} MB", short(bytes / 1e6)),
        bytes => format!("{} GB", short(bytes / 1e9)),
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Measured => "measured",
            Self::Simulated => "simulated",
            Self::Predicted => "predicted",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_unit_that_fits() {
        let times =
            [0.05, 0.9999, 3.3, 119.0, 600.0, 9000.0].map(|seconds| time(Duration::from_secs_f64(seconds)));
        assert_eq!(times, ["50 ms", "1 s", "3.3 s", "119 s", "10 min", "2.5 h"]);
        assert_eq!([0.4, 12.0, 50_000.0, 1_234_567.0].map(thousands), ["0.4", "12", "50 000", "1 234 567"]);
        assert_eq!([250e6, 1.2e9, 800.0].map(bytes), ["250 MB", "1.2 GB", "0.8 kB"]);
        let rates = [1.0 / 600.0, 1.0 / 60.0, 1.0 / 3600.0, 1.0 / 86_400.0, 1.0, 5.0, 0.0].map(messages);
        let texts = [
            "a message every 10 min",
            "a message a minute",
            "a message every hour",
            "a message a day",
            "a message a second",
            "5 messages a second",
            "no message",
        ];
        assert_eq!(rates, texts);
    }
}
