//! A fictitious report of seven strategies and three rivals, with plausible figures and a hostile server name.

use std::collections::BTreeMap;
use std::time::Duration;

use loadtest::data::{
    Bytes, DayRow, Deliveries, Latency, Machine, Opening, Prediction, Report, Requests, Run, ServerCost,
    SimulatedDay, Workload,
};
use loadtest::matrix::{Row, Rows};
use loadtest::model::candidate::{Candidate, Load, Open, Overheads};
use loadtest::model::prediction;
use loadtest::model::radio::Radios;
use loadtest::network::Passed;
use loadtest::report::columns::{mark_best, set_bands};
use loadtest::report::sweep::{Grid, Sweep};
use loadtest::report::verdict::verdict;
use loadtest::strategies::Strategy;

const RATE: f64 = 0.2;

/// Returns the report.
pub(crate) fn report() -> Report {
    let s = Duration::from_secs;
    let open = |heartbeat| Open { heartbeat: Some(s(heartbeat)), life: None };
    let answer = |heartbeat| Open { heartbeat: Some(s(heartbeat)), life: Some(s(60)) };
    let runs = [
        ("pollgate", "short-poll:1s", Candidate::ShortPoll { interval: s(1) }, 1.0),
        ("pollgate", "short-poll:5s", Candidate::ShortPoll { interval: s(5) }, 1.0),
        ("pollgate", "long-poll:25s", Candidate::LongPoll { hold: s(25) }, 1.0),
        ("pollgate", "sse", Candidate::Sse(answer(15)), 1.0),
        ("pollgate", "ndjson", Candidate::Ndjson(answer(15)), 1.1),
        ("pollgate", "websocket", Candidate::WebSocket(open(25)), 0.8),
        ("pollgate", "mqtt", Candidate::Mqtt(open(60)), 0.9),
        ("nchan", "long-poll:25s", Candidate::LongPoll { hold: s(25) }, 1.4),
        ("mosquitto", "mqtt", Candidate::Mqtt(open(60)), 1.3),
        ("durable-streams <img src=x onerror=alert(1)>", "sse", Candidate::Sse(answer(15)), 2.5),
    ];
    let mut runs =
        runs.map(|(server, strategy, candidate, factor)| run(server, strategy, candidate, RATE, factor));
    for run in &mut runs {
        let repeats = [0.95, 1.0, 1.06].map(|factor| varied(run, factor));
        set_bands(run, &repeats);
    }
    mark_best(&mut runs);
    let mut report = Report {
        format: 2,
        verdict: None,
        day: Some(day()),
        command: "cargo run --release -p loadtest -- compare --clients 200 --rate 0.2 --rival nchan"
            .to_owned(),
        began: "2026-01-02T03:04:05Z".to_owned(),
        machine: Machine {
            processor: "A processor with a name".to_owned(),
            cores: 2,
            memory_bytes: 8 << 30,
            kernel: "Linux 6.12".to_owned(),
            versions: vec![
                ("pollgate".to_owned(), "0.1.0".to_owned()),
                ("nginx".to_owned(), "1.26.3".to_owned()),
            ],
        },
        workload: Workload {
            clients: 200,
            streams_shared: None,
            rate: RATE,
            message_bytes: 256,
            seconds: 20.0,
            warm_up_seconds: 3.0,
            seed: 1,
            repeat: 3,
            network: None,
        },
        runs: runs.into(),
        notes: vec!["a made-up report: no figure in it was measured".to_owned()],
    };
    report.verdict = verdict(&report);
    report
}

/// Returns a repeat of a run with other latencies and processor times.
fn varied(run: &Run, factor: f64) -> Run {
    let mut run = run.clone();
    if let Some(latency) = &mut run.latency {
        latency.p50 *= factor;
        latency.p99 *= factor;
    }
    if let Some(cost) = &mut run.server_cost {
        cost.cpu_per_client_second *= factor;
    }
    run
}

/// Returns a simulated day.
pub(crate) fn day() -> SimulatedDay {
    let rows = [
        ("fallback", [0.018, 0.117, 180.0], [47.0, 47.0, 8.0, 82_000.0], 0.0185),
        ("short-poll:300s", [150.0, 288.0, 474.0], [289.0, 289.0, 99.0, 139_000.0], 0.0086),
        ("long-poll:25s", [0.018, 0.108, 180.0], [3508.0, 13.0, 0.0, 1_699_000.0], 0.096),
        ("long-poll:240s", [0.018, 0.116, 180.0], [898.0, 19.0, 6.0, 444_000.0], 0.0133),
        ("sse", [0.018, 0.107, 180.0], [1434.0, 1434.0, 0.0, 1_137_000.0], 0.1644),
        ("websocket", [0.018, 0.119, 180.0], [47.0, 47.0, 8.0, 82_000.0], 0.0131),
    ];
    let rows = rows.map(|(strategy, delays, [requests, connections, forgotten, bytes], battery)| DayRow {
        strategy: strategy.to_owned(),
        published: 1432,
        lost: 0,
        doubled: 0,
        delays: Some(delays),
        requests,
        connections,
        forgotten,
        bytes,
        joules: vec![
            ("LTE".to_owned(), Some(battery * 50_000.0)),
            ("Wi-Fi".to_owned(), Some(battery * 5_440.0)),
        ],
        battery: Some(battery),
    });
    SimulatedDay { phones: 10, hours: 24.0, seconds_between_messages: 600.0, rows: rows.into() }
}

/// Returns readers through networks.
pub(crate) fn networks() -> Rows {
    let readers = ["short-poll", "long-poll", "sse", "websocket", "fallback"];
    let networks = ["none", "nat-idle", "proxy-buffer", "no-websocket", "captive"];
    let rows = networks.iter().flat_map(|network| {
        readers.iter().enumerate().map(move |(place, reader)| {
            let lost = if *network == "proxy-buffer" && *reader == "websocket" { 100 } else { 0 };
            let lost = if *network == "nat-idle" && *reader == "sse" { 12 } else { lost };
            let millis = (lost < 100).then_some(40.0 * (place + 1) as f64);
            Row {
                network: (*network).to_owned(),
                source: "a network with a name".to_owned(),
                reader: (*reader).to_owned(),
                deliveries: Deliveries {
                    intended: 100,
                    delivered: 100 - lost,
                    lost,
                    ..Deliveries::default()
                },
                p50_millis: millis,
                p95_millis: millis.map(|millis| 2.0 * millis),
                longest_millis: millis.map(|millis| 90.0 * millis),
                passed: Passed { connections: 3, requests: 40, faults: u64::from(*network != "none") },
                form: if *reader == "fallback" { "long-poll" } else { reader }.to_owned(),
                changes: Vec::new(),
                troubles: BTreeMap::new(),
            }
        })
    });
    Rows {
        command: "cargo run --release -p loadtest -- networks".to_owned(),
        machine: report().machine,
        scale: 0.2,
        rate: 5.0,
        seconds: 120.0,
        rows: rows.collect(),
    }
}

/// Returns a sweep.
pub(crate) fn sweep() -> Sweep {
    let seconds = |list: &[f64]| list.iter().copied().map(Duration::from_secs_f64).collect();
    let grid = Grid {
        intervals: seconds(&[0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0]),
        holds: seconds(&[5.0, 15.0, 25.0, 55.0]),
        heartbeats: seconds(&[15.0, 45.0, 200.0]),
        rates: vec![0.01, 0.2],
    };
    let runs = |rate: f64| {
        let all = grid.strategies().into_iter().filter_map(|strategy| {
            Some(run("pollgate", &strategy.to_string(), candidate(strategy)?, rate, 1.0))
        });
        (rate, all.collect())
    };
    Sweep::new("LTE", &grid.rates.iter().copied().map(runs).collect::<Vec<_>>())
}

/// Converts a strategy to the formulas' candidate, with connections that never end. `None`: there is none.
fn candidate(strategy: Strategy) -> Option<Candidate> {
    let open = |heartbeat| Open { heartbeat, life: None };
    Some(match strategy {
        Strategy::ShortPoll(interval) => Candidate::ShortPoll { interval },
        Strategy::LongPoll(hold) => Candidate::LongPoll { hold },
        Strategy::Sse(heartbeat) => Candidate::Sse(open(heartbeat)),
        Strategy::Ndjson(heartbeat) => Candidate::Ndjson(open(heartbeat)),
        Strategy::WebSocket(heartbeat) => Candidate::WebSocket(open(heartbeat)),
        Strategy::Mqtt(heartbeat) => Candidate::Mqtt(open(heartbeat)),
        Strategy::XmppWebSocket | Strategy::XmppBosh | Strategy::Wake(_) => return None,
    })
}

/// Returns a run with the formulas' figures times a factor.
fn run(server: &str, strategy: &str, candidate: Candidate, rate: f64, factor: f64) -> Run {
    let load = Load { rate, message_bytes: 256.0, round_trip: Duration::from_micros(300) };
    let figures = candidate.figures(&load, &Overheads::default(), &Radios::default());
    let requests = figures.requests_per_client_hour;
    let polled = match candidate {
        Candidate::ShortPoll { interval } => Some(prediction::short_poll(interval, rate, load.round_trip)),
        Candidate::LongPoll { hold } => {
            Some(prediction::long_poll(hold, rate, load.round_trip, load.round_trip))
        }
        _ => None,
    };
    let interval =
        if let Candidate::ShortPoll { interval } = candidate { interval.as_secs_f64() } else { 0.0 };
    Run {
        server: server.to_owned(),
        strategy: strategy.to_owned(),
        transport: None,
        interrupted: false,
        deliveries: Deliveries {
            intended: 800,
            delivered: 800 - u64::from(factor > 2.0),
            lost: u64::from(factor > 2.0),
            ..Deliveries::default()
        },
        latency: Some(latency(interval * 1e6, 400.0 * factor)),
        requests: Requests {
            per_client_hour: requests,
            empty_per_client_hour: polled.map_or(0.0, |polled| polled.empty_per_client_hour),
            per_delivery: Some(requests / (rate * 3600.0)),
        },
        wakes: None,
        bytes: Bytes {
            up: figures.bytes_per_client_hour * 0.5,
            down: figures.bytes_per_client_hour * 0.3,
            up_with_packets: figures.bytes_per_client_hour * 0.6,
            down_with_packets: figures.bytes_per_client_hour * 0.4,
        },
        connections: 200,
        opening: Opening { bytes: Some(320.0), cpu: Some(60.0 * factor) },
        server_cost: (server != "mosquitto").then_some(ServerCost {
            cpu_per_client_second: factor * (4.0 + requests / 3600.0 * 30.0),
            cpu_per_delivery: Some(factor * (20.0 + requests / (rate * 3600.0) * 30.0)),
            user_bytes_per_client: factor * 1700.0,
            kernel_bytes_per_client: Some(factor * 2300.0),
        }),
        energy: figures.energy,
        prediction: polled.map(|polled| Prediction {
            requests_per_client_hour: polled.requests_per_client_hour,
            mean_latency: polled.mean_latency.as_secs_f64() * 1e6,
            requests_deviation: Some(0.004),
            latency_deviation: Some(-0.021),
        }),
        generator_cores: 0.31,
        late_sends: Some(0.0004),
        bands: BTreeMap::new(),
        best: Vec::new(),
        notes: Vec::new(),
    }
}

/// Returns a uniform distribution over `spread` plus an exponential one of mean `noise`, in microseconds.
fn latency(spread: f64, noise: f64) -> Latency {
    let at = |share: f64| share * spread + noise * (0.4 - (1.0 - share).ln());
    let cdf = (0..200).map(|step| f64::from(step) / 200.0).map(|share| (at(share), share));
    Latency {
        mean: spread / 2.0 + 1.4 * noise,
        p50: at(0.5),
        p90: at(0.9),
        p95: at(0.95),
        p99: at(0.99),
        p999: at(0.999),
        max: at(0.9999),
        cdf: cdf.chain([(at(0.999), 0.999), (at(0.9999), 1.0)]).collect(),
    }
}
