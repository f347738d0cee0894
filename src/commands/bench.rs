//! `pollgate bench`: finds out what the network between here and a gateway lets through: which delivery forms, how soon, and how long a connection may be
//! silent.

mod probe;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use futures_util::future::join_all;
use pollgate_client::{Client, Form};
use serde::Serialize;
use tokio::time::Instant;

use super::gateway::{answered, builder, client};
use super::options::BenchCommand;
use super::progress::with_time;
use probe::{FIRST_WITHIN, Probe};

/// How long connections are silent, in seconds. Each has a connection of its own, and all are silent at the same time.
const SILENCES: [u64; 6] = [0, 10, 20, 30, 45, 55];

/// How many publishes are timed.
const PUBLISHES: usize = 5;

/// What was found out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Findings {
    url: String,
    /// Median time from a publish to its acknowledgement, over a connection that is open.
    publish_ms: f64,
    forms: Vec<FormFindings>,
    advice: String,
}

/// What was found out about a delivery form.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct FormFindings {
    form: &'static str,
    delivers: bool,
    /// Median time from a publish to its delivery. `None`: nothing was delivered.
    delivery_ms: Option<f64>,
    /// Longest silence after which a connection still delivered.
    bears_seconds: Option<u64>,
    /// Shortest silence after which it did not, or not at once.
    fails_seconds: Option<u64>,
}

/// Measures for about a minute, and prints what was found out.
pub(crate) async fn bench(command: BenchCommand) -> Result<ExitCode, Box<dyn Error>> {
    let name = command.stream.clone().unwrap_or_else(|| format!("bench/{:016x}", fastrand::u64(..)));
    let publisher = client(&command.gateway)?;
    let publish_ms = publish_ms(&command, &publisher, &name).await?;
    let longest = command.idle.get().as_secs().max(1);
    let mut silences: Vec<u64> = SILENCES.into_iter().filter(|silence| *silence < longest).collect();
    silences.push(longest);
    let work = join_all(Form::ALL.map(|form| of_form(&command, &publisher, &name, form, &silences)));
    let forms = with_time(FIRST_WITHIN + Duration::from_secs(longest), "connections are silent", work).await;
    let forms = forms.into_iter().collect::<Result<Vec<_>, _>>()?;
    let findings = Findings { url: command.gateway.url.clone(), publish_ms, advice: advice(&forms), forms };
    let mut out = io::stdout().lock();
    if command.json {
        writeln!(out, "{}", serde_json::to_string(&findings)?)?;
    } else {
        print(&mut out, &findings)?;
    }
    let delivers = findings.forms.iter().any(|form| form.delivers);
    Ok(if delivers { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Times publishes one after the other. This tells at once if there is no gateway, or no right to publish.
async fn publish_ms(command: &BenchCommand, publisher: &Client, name: &str) -> Result<f64, Box<dyn Error>> {
    let producer = publisher.producer(name, "application/json");
    answered(&command.gateway, producer.publish("0")).await?;
    let mut times = Vec::new();
    for _ in 0..PUBLISHES {
        let began = Instant::now();
        answered(&command.gateway, producer.publish("0")).await?;
        times.push(began.elapsed());
    }
    remove(command, publisher, name).await?;
    median_ms(times).ok_or_else(|| "nothing was published".into())
}

/// A form with each of the silences.
async fn of_form(
    command: &BenchCommand,
    publisher: &Client,
    name: &str,
    form: Form,
    silences: &[u64],
) -> Result<FormFindings, Box<dyn Error>> {
    let probe = async |silence: u64| {
        let reader = builder(&command.gateway)?;
        let stream = format!("{name}/{form}/{silence}");
        let probe = Probe::start(reader, publisher, &stream, form, Duration::from_secs(silence))?;
        let found = probe.run().await;
        remove(command, publisher, &stream).await?;
        Ok::<_, Box<dyn Error>>((silence, found))
    };
    let possible =
        silences.iter().filter(|silence| Probe::can_be_silent(form, Duration::from_secs(**silence)));
    let found = join_all(possible.map(|silence| probe(*silence))).await;
    let found = found.into_iter().collect::<Result<Vec<_>, _>>()?;
    let delivery_ms = median_ms(found.iter().filter_map(|(_, found)| found.delivered).collect());
    let fails_seconds = found
        .iter()
        .find(|(_, found)| found.delivered.is_some() && !found.bears)
        .map(|(silence, _)| *silence);
    let is_borne = |silence: u64| fails_seconds.is_none_or(|fails| silence < fails);
    let borne = found.iter().filter(|(silence, found)| found.bears && is_borne(*silence));
    Ok(FormFindings {
        form: form.name(),
        delivers: delivery_ms.is_some(),
        delivery_ms,
        bears_seconds: borne.map(|(silence, _)| *silence).filter(|silence| *silence > 0).max(),
        fails_seconds,
    })
}

/// Deletes a stream of the measurement. A token without the right to do so leaves it to its retention.
async fn remove(command: &BenchCommand, client: &Client, name: &str) -> Result<(), Box<dyn Error>> {
    match answered(&command.gateway, client.delete_stream(name)).await {
        Err(error) if error.is::<pollgate_client::RequestError>() => Ok(()),
        outcome => outcome.map(|_| ()),
    }
}

fn median_ms(mut times: Vec<Duration>) -> Option<f64> {
    times.sort_unstable();
    times.get(times.len() / 2).map(|time| (time.as_secs_f64() * 1e4).round() / 10.0)
}

fn print(out: &mut impl Write, findings: &Findings) -> io::Result<()> {
    writeln!(out, "{}: a publish takes {} ms\n", findings.url, findings.publish_ms)?;
    writeln!(out, "{:<11} {:>12}   a connection may be silent", "form", "delivery")?;
    for FormFindings { form, delivery_ms, bears_seconds, fails_seconds, .. } in &findings.forms {
        let Some(delivery_ms) = delivery_ms else {
            writeln!(out, "{form:<11} {:>12}", "blocked")?;
            continue;
        };
        if *form == Form::ShortPoll.name() {
            writeln!(out, "{form:<11} {:>12}   -", "each poll")?;
            continue;
        }
        let silence = match (bears_seconds, fails_seconds) {
            (Some(bears), None) => format!("{bears} s, the longest that was tried"),
            (Some(bears), Some(fails)) => format!("{bears} s, not {fails} s"),
            (None, Some(fails)) => format!("less than {fails} s"),
            (None, None) => "unknown".to_owned(),
        };
        writeln!(out, "{form:<11} {:>9.1} ms   {silence}", delivery_ms)?;
    }
    writeln!(out, "\n{}", findings.advice)
}

/// What to do with the findings, in a sentence or two.
fn advice(forms: &[FormFindings]) -> String {
    let Some(best) = forms.iter().find(|form| form.delivers) else {
        return "Nothing is delivered in any form.".to_owned();
    };
    let mut advice = format!("Clients that choose by themselves will read by {}", best.form);
    // A connection that is to survive speaks well before the silence that it was seen to bear.
    let margin = |seconds: u64| seconds.saturating_sub((seconds / 10).max(3)).max(1);
    match best.bears_seconds {
        Some(bears) if best.form != Form::ShortPoll.name() && best.form != Form::LongPoll.name() => {
            advice.push_str(&format!(" with a heartbeat of up to {} s (heartbeat=…).", margin(bears)));
        }
        _ => advice.push('.'),
    }
    let long_poll = forms.iter().find(|form| form.form == Form::LongPoll.name());
    match long_poll.and_then(|form| form.bears_seconds) {
        Some(bears) => {
            advice.push_str(&format!(" A long poll may be held for {} s (timeout=…).", margin(bears)))
        }
        None => advice.push_str(" Long polls are cut; use short polls where nothing else works."),
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(form: Form, bears: Option<u64>, fails: Option<u64>) -> FormFindings {
        let delivers = bears.or(fails).is_some();
        let (form, delivery_ms) = (form.name(), delivers.then_some(1.0));
        FormFindings { form, delivers, delivery_ms, bears_seconds: bears, fails_seconds: fails }
    }

    #[test]
    fn the_advice_is_about_the_best_form_and_stays_below_what_was_borne() {
        let cut = [found(Form::WebSocket, None, None), found(Form::Sse, Some(30), Some(45))];
        let cut = [&cut[..], &[found(Form::LongPoll, Some(20), Some(30))]].concat();
        assert_eq!(
            advice(&cut),
            "Clients that choose by themselves will read by sse with a heartbeat of up to 27 s (heartbeat=…). A long poll may be held for 17 s (timeout=…)."
        );
        let blocked = [found(Form::WebSocket, None, None), found(Form::ShortPoll, Some(10), None)];
        assert!(advice(&blocked).contains("read by short-poll. Long polls are cut"), "{}", advice(&blocked));
        assert_eq!(advice(&[found(Form::Sse, None, None)]), "Nothing is delivered in any form.");
    }
}
