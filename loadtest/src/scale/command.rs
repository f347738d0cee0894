//! The command `scale`: measures, computes and formats.

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Duration;

use super::check::{CheckError, Checked, check, measure};
use super::measure::Bench;
use super::text::{CHECK_LEGEND, check_table};
use crate::cli::ScaleOptions;
use crate::machine::load_average;
use crate::model::server_load::{EventCosts, ServerCosts};
use crate::run::RunError;
use crate::servers::{Server, ServerError};
use crate::simulate::Reader;

/// Clients of the runs that measure what events cost: so many that the gateway handles several events whenever it wakes, as one with very many
/// clients does. An event alone costs up to twice as much.
const CLIENTS: u32 = 4000;

/// What a measurement or a check has found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    /// Microseconds of processor time for the events of each form, if they were measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<(String, EventCosts)>,
    /// Microseconds of processor time for a connection.
    connection: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checked: Vec<Checked>,
    load_average_before: f64,
}

/// Returns what the command prints. A `stop` of true ends it, with an error.
pub async fn scale(wanted: &ScaleOptions, stop: watch::Receiver<bool>) -> Result<String, CheckError> {
    let readers = wanted.readers();
    let mut costs = ServerCosts::measured().ok_or(CheckError::NoCosts)?;
    let load_average_before = load_average();
    let mut found = Found { events: Vec::new(), connection: None, checked: Vec::new(), load_average_before };
    if wanted.measure || !wanted.check.is_empty() {
        let server = Server::own(None, wanted.gateway.as_deref(), None).map_err(run_error)?;
        let measured = Duration::from_secs_f64(wanted.seconds);
        let bench = Bench { server, clients: CLIENTS, rate: wanted.messages, measured, stop };
        if wanted.measure {
            let forms = one_of_each_form(&readers);
            measure(&bench, &forms, &mut costs).await?;
            let of = |reader: &Reader| Some((reader.form().to_owned(), costs.events(reader.form())?));
            found.connection = Some(costs.connection);
            found.events = forms.iter().filter_map(of).collect();
        }
        for &reader in &readers {
            for &clients in &wanted.check {
                eprintln!("{reader} with {clients} clients");
                found.checked.push(check(&bench, reader, clients, &costs).await?);
            }
        }
    }
    let is_check = !wanted.check.is_empty();
    if wanted.json && is_check {
        return Ok(json(&found));
    }
    let mut lines = Vec::new();
    lines.extend(found.connection.map(|micros| format!("connection = {micros:.0}")));
    lines.extend(found.events.iter().map(|(form, EventCosts { message, request, heartbeat })| {
        format!("{form} = {{ message = {message:.0}, request = {request:.0}, heartbeat = {heartbeat:.0} }}")
    }));
    if is_check {
        lines.push(check_table(&found.checked));
        lines.push(format!("{CHECK_LEGEND}\nload average {:.2} before", found.load_average_before));
        return Ok(lines.join("\n"));
    }
    let scaled = wanted.scale().answer(&costs, |reader| eprintln!("{reader}"))?;
    if wanted.json {
        return Ok(json(&scaled));
    }
    lines.push(scaled.to_string());
    Ok(lines.join("\n"))
}

/// The first strategy of each form.
fn one_of_each_form(readers: &[Reader]) -> Vec<Reader> {
    let mut of_each: Vec<Reader> = Vec::new();
    for reader in readers {
        if of_each.iter().all(|other| other.form() != reader.form()) {
            of_each.push(*reader);
        }
    }
    of_each
}

fn run_error(error: ServerError) -> CheckError {
    CheckError::Run(RunError::Server(error))
}

fn json(value: &impl Serialize) -> String {
    // Numbers and texts always serialize.
    serde_json::to_string_pretty(value).unwrap_or_default()
}
