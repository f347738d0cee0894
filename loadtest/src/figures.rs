//! The figures of a server in a round, and how those of two servers compare over the rounds.

mod pace;
mod table;

use crate::medians::median_of;

pub use pace::Pace;
pub use table::table;

/// Puts the figures of a column in a few words: `appends/s 66070`.
pub fn in_short<F: Figures>(what: &str, figures: &F) -> String {
    let first = F::COLUMNS.first().and_then(|column| Some((column, (column.pick)(figures)?)));
    first.map_or_else(String::new, |(column, figure)| {
        format!("{} {}", column.named(what), (column.write)(figure))
    })
}

/// What one kind of load came to on a server in one round.
pub trait Figures: Copy + 'static {
    /// Those of the table, the one that says most first.
    const COLUMNS: &'static [Column<Self>];

    /// Processor time of the generator, as a share of one core, while it was what a server could have waited for.
    fn generator_cores(&self) -> f64;

    /// Threads that it ran on.
    fn generator_threads(&self) -> u32 {
        1
    }
}

/// A figure: what the header says of it, how it is found, and how it is written.
pub struct Column<F> {
    /// `WHAT` in it is what the load counts.
    pub header: &'static str,
    /// Finds it, where there is one.
    pub pick: Pick<F>,
    /// Writes it.
    pub write: fn(f64) -> String,
}

/// One of the figures, where there is one.
pub type Pick<F> = fn(&F) -> Option<f64>;

/// A generator whose threads are busier than this has them for a limit.
const GENERATOR_CORES_MAX: f64 = 0.9;

/// A server and what it came to, round by round.
#[derive(Debug, Clone)]
pub struct Standing<F> {
    /// Of the server.
    pub server: &'static str,
    /// Its rounds; the same number for each server.
    pub rounds: Vec<F>,
}

/// The middle of some figures and how far they spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least one.
    pub least: f64,
    /// The greatest one.
    pub greatest: f64,
}

impl<F> Column<F> {
    /// Its header, of a load that counts `what`.
    fn named(&self, what: &str) -> String {
        self.header.replace("WHAT", what)
    }
}

impl<F: Figures> Standing<F> {
    /// A figure over the rounds.
    pub fn spread(&self, pick: Pick<F>) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(pick).collect())
    }

    /// Says when the server waited for the generator, so that it can do more than was measured.
    pub fn distortion(&self) -> Option<String> {
        let cores = self.spread(|figures| Some(figures.generator_cores()))?.median;
        let (server, threads) = (self.server, self.rounds.first()?.generator_threads());
        let busy = cores / f64::from(threads);
        let whose = if threads == 1 { "thread was".to_owned() } else { format!("{threads} threads were") };
        (busy > GENERATOR_CORES_MAX).then(|| {
            format!(
                "{server}: the generator's {whose} busy for {busy:.2} of the time, so the server can do more"
            )
        })
    }

    /// A figure divided by that of a rival in the same round, over the rounds: what slows the machine down for a while is in
    /// both of them. There is none to a figure of nought.
    pub fn ratio(&self, rival: &Self, pick: Pick<F>) -> Option<Spread> {
        let pairs = self.rounds.iter().zip(&rival.rounds);
        let ratios = pairs.filter_map(|(own, rivals)| Some(pick(own)? / pick(rivals)?));
        Spread::of(ratios.filter(|ratio| ratio.is_finite()).collect())
    }
}

impl Spread {
    fn of(figures: Vec<f64>) -> Option<Self> {
        Some(Self {
            least: figures.iter().copied().min_by(f64::total_cmp)?,
            greatest: figures.iter().copied().max_by(f64::total_cmp)?,
            median: median_of(figures)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(server: &'static str, rates: [f64; 3]) -> Standing<Pace> {
        let figures = |rate| Pace {
            rate,
            p50: 100.0,
            p99: 900.0,
            server_processor: None,
            generator_cores: 0.5,
            generator_threads: 1,
        };
        Standing { server, rounds: rates.map(figures).to_vec() }
    }

    /// A machine that halves its speed in the second round: the medians say 1, the rounds say 2.
    #[test]
    fn ratios_are_those_of_the_rounds() {
        let own = standing("own", [4000.0, 2000.0, 4200.0]);
        let rival = standing("rival", [2000.0, 1000.0, 2000.0]);
        let ratio = own.ratio(&rival, |figures| Some(figures.rate)).unwrap();
        assert_eq!(ratio, Spread { median: 2.0, least: 2.0, greatest: 2.1 });
        assert_eq!(own.spread(|figures| Some(figures.rate)).unwrap().median, 4000.0);
        assert_eq!(own.ratio(&rival, |figures| figures.server_processor), None);
        assert_eq!(own.ratio(&standing("idle", [0.0; 3]), |figures| Some(figures.rate)), None);
        assert_eq!(own.distortion(), None);
    }

    #[test]
    fn a_generator_without_time_left_is_said_so() {
        let mut busy = standing("busy", [1.0; 3]);
        busy.rounds.iter_mut().for_each(|round| round.generator_cores = 0.95);
        assert!(busy.distortion().unwrap().contains("thread was busy for 0.95"));
        busy.rounds.iter_mut().for_each(|round| round.generator_threads = 2);
        assert_eq!(busy.distortion(), None);
        busy.rounds.iter_mut().for_each(|round| round.generator_cores = 1.9);
        assert!(busy.distortion().unwrap().contains("2 threads were busy for 0.95"));
    }
}
