//! Figures of a server in a round, and the ratios of two servers' figures over all rounds.

mod pace;
mod table;

use crate::medians::median_of;

pub use pace::Pace;
pub use table::table;

/// Formats the figure of the first column: `appends/s 66070`.
pub fn in_short<F: Figures>(what: &str, figures: &F) -> String {
    let first = F::COLUMNS.first().and_then(|column| Some((column, (column.pick)(figures)?)));
    first.map_or_else(String::new, |(column, figure)| {
        format!("{} {}", column.named(what), (column.write)(figure))
    })
}

/// The result of one kind of load on a server in one round.
pub trait Figures: Copy + 'static {
    /// Columns of the table, the most important first.
    const COLUMNS: &'static [Column<Self>];

    /// Processor time of the generator, as a share of one core, while the server may have waited for it.
    fn generator_cores(&self) -> f64;

    /// Number of threads of the generator.
    fn generator_threads(&self) -> u32 {
        1
    }
}

/// A column of the table: its header, its figure, and how the figure is formatted.
pub struct Column<F> {
    /// Header; `WHAT` in it is replaced by what the load counts.
    pub header: &'static str,
    /// Returns the figure, if there is one.
    pub pick: Pick<F>,
    /// Formats the figure.
    pub write: fn(f64) -> String,
}

/// Picks one of the figures, if it exists.
pub type Pick<F> = fn(&F) -> Option<f64>;

/// Above this share of a core per thread, the generator is taken to limit the result.
const GENERATOR_CORES_MAX: f64 = 0.9;

/// A server and its figures, one per round.
#[derive(Debug, Clone)]
pub struct ServerFigures<F> {
    /// Name of the server.
    pub server: &'static str,
    /// Figures of the rounds; every server has the same number.
    pub rounds: Vec<F>,
}

/// The median and range of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// Least value.
    pub least: f64,
    /// Greatest value.
    pub greatest: f64,
}

impl<F> Column<F> {
    /// Returns the header for a load that counts `what`.
    fn named(&self, what: &str) -> String {
        self.header.replace("WHAT", what)
    }
}

impl<F: Figures> ServerFigures<F> {
    /// Returns the spread of a figure over the rounds.
    pub fn spread(&self, pick: Pick<F>) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(pick).collect())
    }

    /// Returns a warning if the server waited for the generator, so that its true figures may be better.
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

    /// Divides a figure by the rival's figure of the same round, and returns the spread of the ratios. A slow period of the
    /// machine affects both, so that it cancels out. Rounds where the rival's figure is 0 are left out.
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

    fn standing(server: &'static str, rates: [f64; 3]) -> ServerFigures<Pace> {
        let figures = |rate| Pace {
            rate,
            p50: 100.0,
            p99: 900.0,
            server_processor: None,
            generator_cores: 0.5,
            generator_threads: 1,
        };
        ServerFigures { server, rounds: rates.map(figures).to_vec() }
    }

    /// The machine halves its speed in the second round: the ratio of the medians is 1, the ratios of the rounds are 2.
    #[test]
    fn ratios_compare_figures_of_the_same_round() {
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
    fn a_busy_generator_is_reported() {
        let mut busy = standing("busy", [1.0; 3]);
        busy.rounds.iter_mut().for_each(|round| round.generator_cores = 0.95);
        assert!(busy.distortion().unwrap().contains("thread was busy for 0.95"));
        busy.rounds.iter_mut().for_each(|round| round.generator_threads = 2);
        assert_eq!(busy.distortion(), None);
        busy.rounds.iter_mut().for_each(|round| round.generator_cores = 1.9);
        assert!(busy.distortion().unwrap().contains("2 threads were busy for 0.95"));
    }
}
