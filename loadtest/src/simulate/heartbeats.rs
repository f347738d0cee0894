//! Which heartbeat keeps a phone's connection alive at the least cost, behind NATs that forget idle connections after different times.

use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::table::time;
use super::{Day, Deaths, Network, Outcome, Reader, Simulation, SimulationError};
use crate::model::candidate::Setting;
use crate::model::energy::battery_share;

/// What the columns mean.
pub const HEARTBEATS_LEGEND: &str = "\
heartbeat: a fixed one; the search of the client, which doubles the heartbeat and then bisects, up to 5 min; or mars, the rule of WeChat's client,
  whose phones send the heartbeats: 3.5 min on each new connection, then up to 10 min, a minute more after 5 that were answered, less after 2 that were not
NAT: time without a packet after which the mobile network forgets a connection, without a word to either end
battery: of one phone in the day, for its radio alone, if nothing else wakes it: share of a battery with 4000 mAh and 3.85 V
delay: from the call of publish to the message in the app; connections: of one phone in the day; forgotten: those that the NAT dropped
false deaths: connections of one phone that it gave up although the network would have carried them
unnoticed: how long a connection that the NAT had forgotten was believed to be alive, on average, and of one phone in the day
Everything is simulated: the code of gateway and client is real, network and radios are models (src/model/radios.toml)";

/// Days that differ by the NAT, the heartbeat and the radio.
#[derive(Debug, Clone)]
pub struct Heartbeats {
    /// Times after which the NAT forgets a connection.
    pub nats: Vec<Duration>,
    /// Forms with their heartbeats.
    pub readers: Vec<Reader>,
    /// Names of radio profiles.
    pub radios: Vec<String>,
    /// Number of phones in each simulation.
    pub phones: u32,
    /// Length of each simulation.
    pub length: Duration,
    /// Mean time between two messages to a phone.
    pub every: Duration,
    /// Seed of everything that is random.
    pub seed: u64,
}

/// One heartbeat behind one NAT.
#[derive(Debug)]
pub struct HeartbeatDay {
    nat: Duration,
    reader: Reader,
    /// The outcome with each radio, in the order of the radios.
    outcomes: Vec<Outcome>,
}

impl Heartbeats {
    /// Simulates all days, those behind one NAT after the other. `told` is called before each.
    pub fn run(&self, told: impl Fn(Duration, Reader)) -> Result<Vec<HeartbeatDay>, SimulationError> {
        let mut days = Vec::new();
        for &nat in &self.nats {
            for &reader in &self.readers {
                told(nat, reader);
                let outcomes = self.radios.iter().map(|radio| self.simulation(nat, reader, radio).run());
                days.push(HeartbeatDay { nat, reader, outcomes: outcomes.collect::<Result<_, _>>()? });
            }
        }
        Ok(days)
    }

    fn simulation(&self, nat: Duration, reader: Reader, radio: &str) -> Simulation {
        let network = Network { nat_idle: Some(nat.as_secs_f64()), ..Network::mobile(radio) };
        Simulation {
            day: Day::within(network, self.length),
            phones: self.phones,
            reader,
            every: self.every,
            seed: self.seed,
            keeps_trace: false,
        }
    }

    /// Says for each radio what each heartbeat takes on average over all NATs, and the longest delay that came with it.
    pub fn verdict(&self, days: &[HeartbeatDay]) -> String {
        let of_radio = |(index, radio): (usize, &String)| {
            let each = self.readers.iter().map(|reader| {
                let of_reader: Vec<_> = days.iter().filter(|day| day.reader == *reader).collect();
                let shares = of_reader.iter().filter_map(|day| day.battery(index));
                let share = shares.sum::<f64>() / of_reader.len().max(1) as f64;
                let delays = of_reader.iter().filter_map(|day| Some(day.delays(index)?[1]));
                let longest = delays.max().unwrap_or_default();
                format!(
                    "{reader} takes {:.1} % of the battery a day, its longest delay is {}",
                    100.0 * share,
                    time(longest)
                )
            });
            let each: Vec<_> = each.collect();
            format!("With {radio}, on average over these networks: {}.", each.join("; "))
        };
        self.radios.iter().enumerate().map(of_radio).collect::<Vec<_>>().join("\n")
    }

    /// Formats the table.
    pub fn table(&self, days: &[HeartbeatDay]) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
        let batteries = self.radios.iter().map(|radio| format!("battery, {radio}"));
        let headers = ["NAT", "heartbeat"].map(str::to_owned).into_iter().chain(batteries);
        let further =
            ["delay p95", "max", "lost", "connections", "forgotten", "false deaths", "unnoticed", "a day"]
                .map(str::to_owned);
        table.set_header(headers.chain(further));
        for day in days {
            table.add_row(day.row());
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }
}

impl HeartbeatDay {
    /// Whether every message arrived, once and in order.
    pub fn is_whole(&self) -> bool {
        self.outcomes.iter().all(Outcome::is_whole)
    }

    /// Share of the battery with one of the radios.
    fn battery(&self, radio: usize) -> Option<f64> {
        let outcome = self.outcomes.get(radio)?;
        let joules: f64 = outcome.joules.values().sum();
        Some(battery_share(joules / outcome.phones.max(1) as f64))
    }

    /// The 95th percentile and the longest delay with one of the radios.
    fn delays(&self, radio: usize) -> Option<[Duration; 2]> {
        self.outcomes.get(radio)?.latencies.quantiles([0.95, 1.0])
    }

    /// How long a dead connection was believed to be alive on average, and how long each phone had such connections.
    fn unnoticed(&self) -> Option<[Duration; 2]> {
        let outcome = self.outcomes.first()?;
        let Deaths { noticed, unnoticed, .. } = outcome.deaths;
        let of = |count: u64| unnoticed.div_f64(count.max(1) as f64);
        (noticed > 0).then(|| [of(noticed), of(outcome.phones)])
    }

    fn row(&self) -> Vec<String> {
        let mut row = vec![Setting(self.nat).to_string(), self.reader.to_string()];
        let batteries = (0..self.outcomes.len()).filter_map(|radio| self.battery(radio));
        row.extend(batteries.map(|share| format!("{:.2} %", 100.0 * share)));
        row.extend(self.delays(0).map_or(["-".to_owned(), "-".to_owned()], |delays| delays.map(time)));
        let first = self.outcomes.first();
        let lost = self.outcomes.iter().map(Outcome::lost).sum::<u64>();
        let each = |count: fn(&Outcome) -> u64| {
            first.map_or(0.0, |outcome| count(outcome) as f64 / outcome.phones.max(1) as f64)
        };
        let (connections, forgotten) =
            (each(|outcome| outcome.connections), each(|outcome| outcome.forgotten));
        row.extend([lost.to_string(), format!("{connections:.0}"), format!("{forgotten:.1}")]);
        let false_deaths = each(|outcome| outcome.deaths.falsely_given_up);
        row.push(format!("{false_deaths:.1}"));
        row.extend(self.unnoticed().map_or(["-".to_owned(), "-".to_owned()], |times| times.map(time)));
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_saves_energy_behind_a_patient_nat_and_delays_less_behind_an_impatient_one() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let wanted = Heartbeats {
            nats: vec![minutes(1), minutes(15)],
            readers: ["websocket:30s", "websocket:270s", "websocket"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            radios: vec!["LTE".to_owned()],
            phones: 1,
            length: minutes(360),
            every: minutes(10),
            seed: 3,
        };
        let days = wanted.run(|_, _| ()).unwrap();
        assert!(days.iter().all(HeartbeatDay::is_whole));
        let [short, long, search, patient_short, patient_long, patient_search] = &days[..] else {
            panic!("{} days", days.len())
        };
        let forgotten = |day: &HeartbeatDay| day.outcomes[0].forgotten;
        assert!(forgotten(long) - long.outcomes[0].deaths.noticed <= 1, "{long:?}");
        assert_eq!([short, patient_short, patient_long].map(forgotten), [0; 3]);
        let longest = |day: &HeartbeatDay| day.delays(0).unwrap()[1];
        assert!(forgotten(long) > forgotten(search) && longest(long) > longest(search));
        assert!(
            longest(long) > minutes(2),
            "nobody tells the phone that the gateway has given the connection up"
        );
        let battery = |day: &HeartbeatDay| day.battery(0).unwrap();
        assert!(battery(patient_search) < 0.3 * battery(patient_short));
        assert!(wanted.verdict(&days).starts_with("With LTE, on average"));
    }

    #[test]
    fn mars_keeps_a_connection_behind_a_patient_nat_and_does_not_notice_for_minutes_that_an_impatient_one_has_dropped_it()
     {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let wanted = Heartbeats {
            nats: vec![minutes(2), minutes(6), minutes(15)],
            readers: vec!["websocket:mars".parse().unwrap()],
            radios: vec!["LTE".to_owned()],
            phones: 2,
            length: minutes(720),
            every: minutes(30),
            seed: 3,
        };
        let days = wanted.run(|_, _| ()).unwrap();
        assert!(days.iter().all(HeartbeatDay::is_whole));
        let [impatient, middle, patient] = &days[..] else { panic!("{} days", days.len()) };
        let deaths = |day: &HeartbeatDay| day.outcomes[0].deaths;
        assert_eq!(days.iter().map(|day| deaths(day).falsely_given_up).sum::<u64>(), 0);
        // The heartbeat after 3.5 min meets a NAT that forgot after 2 min, and its answer is awaited for 8 s.
        let [each, _] = impatient.unnoticed().unwrap();
        assert!((each.as_secs_f64() - 98.0).abs() < 10.0, "{each:?}");
        // Each connection that was forgotten was noticed, but for the last one of each phone.
        let unnoticed = impatient.outcomes[0].forgotten - deaths(impatient).noticed;
        assert!(unnoticed <= 2, "{days:?}");
        assert!(deaths(impatient).noticed > 50 && (2..30).contains(&deaths(middle).noticed), "{days:?}");
        assert_eq!((deaths(patient), patient.outcomes[0].connections), (Deaths::default(), 2));
        let battery = |day: &HeartbeatDay| day.battery(0).unwrap();
        assert!(battery(patient) < battery(impatient));
    }
}
