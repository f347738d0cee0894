//! Options for the program that sends the requests of a closed loop.

use clap::{Args, ValueEnum};

use crate::loads::Generator;

/// Options of `appends` and `short-polls`.
#[derive(Debug, Clone, Args)]
pub struct GeneratorOptions {
    /// Request generator: this program, on one thread, or wrk (Debian: wrk), which repeats one request
    #[arg(long, value_enum, default_value_t = Kind::Own)]
    generator: Kind,
    /// Number of wrk threads
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Own,
    Wrk,
}

impl GeneratorOptions {
    /// Returns the chosen generator.
    pub fn generator(&self) -> Generator {
        match self.generator {
            Kind::Own => Generator::Own,
            Kind::Wrk => Generator::Wrk(self.threads),
        }
    }
}
