//! Parses the output of wrk.

use super::WrkError;

/// Figures of a run of wrk without errors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counted {
    /// Number of answered requests.
    pub requests: u64,
    /// Answered requests per second.
    pub rate: f64,
    /// 50th percentile of the latency in microseconds.
    pub p50: f64,
    /// 99th percentile of the latency in microseconds.
    pub p99: f64,
}

impl Counted {
    /// Parses the output; an error if wrk reports failures or a figure is missing.
    pub(super) fn parse(text: &str) -> Result<Self, WrkError> {
        let after = |start: &str| text.lines().find_map(|line| line.trim_start().strip_prefix(start));
        if let Some(errors) = after("Socket errors: ") {
            return Err(WrkError::Sockets(errors.to_owned()));
        }
        if let Some(count) = after("Non-2xx or 3xx responses: ") {
            return Err(WrkError::Refused(count.parse().map_err(|_| WrkError::Unsaid("refusals"))?));
        }
        let requests = text.lines().find_map(|line| line.trim_start().split_once(" requests in "));
        Ok(Self {
            requests: requests
                .and_then(|(count, _)| count.parse().ok())
                .ok_or(WrkError::Unsaid("requests"))?,
            rate: after("Requests/sec:")
                .and_then(|rate| rate.trim().parse().ok())
                .ok_or(WrkError::Unsaid("rate"))?,
            p50: after("50%").and_then(micros).ok_or(WrkError::Unsaid("median"))?,
            p99: after("99%").and_then(micros).ok_or(WrkError::Unsaid("99th percentile"))?,
        })
    }
}

/// Parses a time with its unit into microseconds.
fn micros(time: &str) -> Option<f64> {
    let time = time.trim();
    let unit = time.find(|letter: char| letter.is_ascii_alphabetic())?;
    let (number, unit) = time.split_at(unit);
    let scale = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Running 1s test @ http://127.0.0.1:18999/?a=b
  2 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.97ms  665.66us   6.93ms   75.19%
    Req/Sec     1.00k   344.80     1.47k    75.00%
  Latency Distribution
     50%  612.50us
     75%    3.31ms
     90%    3.80ms
     99%    5.05ms
  1991 requests in 1.00s, 680.52KB read
Requests/sec:   1989.01
Transfer/sec:    679.84KB
";

    #[test]
    fn the_figures_of_wrk_are_parsed() {
        let counted = Counted { requests: 1991, rate: 1989.01, p50: 612.5, p99: 5050.0 };
        assert_eq!(Counted::parse(TEXT).unwrap(), counted);
        assert_eq!(micros(" 1.50s"), Some(1.5e6));
        assert_eq!(micros("1.00m"), None);
    }

    #[test]
    fn failures_and_incomplete_output_are_errors() {
        for (line, why) in [
            (
                "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
                "errors: connect 0, read 3, write 0",
            ),
            ("  Non-2xx or 3xx responses: 17\n", "beyond 2xx and 3xx: 17"),
        ] {
            let refused = Counted::parse(&format!("{TEXT}{line}")).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        for left_out in [" requests in ", "Requests/sec", "50%", "99%"] {
            let rest: String = TEXT
                .lines()
                .filter(|line| !line.contains(left_out))
                .map(|line| format!("{line}\n"))
                .collect();
            assert!(matches!(Counted::parse(&rest), Err(WrkError::Unsaid(_))), "{left_out}");
        }
    }
}
