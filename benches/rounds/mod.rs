//! Runs each round of a bench as a separate process, so that no round inherits memory from an earlier one.

use std::process::Command;

/// Runs this program `rounds` times with `arguments`; each run prints `N` figures. Returns the median of each figure.
pub(crate) fn medians<const N: usize>(arguments: &[&str], rounds: usize) -> [f64; N] {
    let mut columns = [const { Vec::new() }; N];
    for _ in 0..rounds {
        let output = Command::new(std::env::current_exe().unwrap()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        for (column, figure) in columns.iter_mut().zip(text.split_whitespace()) {
            column.push(figure.parse::<f64>().unwrap());
        }
    }
    columns.map(|mut column| {
        column.sort_by(f64::total_cmp);
        column[column.len() / 2]
    })
}
