//! Whether simulations agree with measurements, and with the formulas of the cost model.

mod case;
mod formulas;
mod kernel;
mod measured;
mod parallel;
mod row;
mod run;

pub use case::{Between, NETWORKS, STRATEGIES};
pub use formulas::{Checked, FormulaGrid, table as formulas_table};
pub use row::{Apart, LEGEND, Observed, Row, table};
pub use run::{AgreeError, Agreed, Agreement};
