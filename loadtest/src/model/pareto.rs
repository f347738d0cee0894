//! The front of a trade-off: what is beaten by nothing in both cost and latency.

/// A choice, in whatever units; less is better in both.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Such as requests or joules a client-hour.
    pub cost: f64,
    /// Such as the p95 in microseconds.
    pub latency: f64,
}

/// The indices of the points that no other one beats, by rising cost and so by falling latency.
///
/// A point is beaten by one that is no worse in either and better in one. Of equal points the first stays. A point with
/// a figure that is not a number is on no front.
pub fn front(points: &[Point]) -> Vec<usize> {
    let mut rising: Vec<_> = points
        .iter()
        .enumerate()
        .filter(|(_, point)| !point.cost.is_nan() && !point.latency.is_nan())
        .collect();
    rising.sort_by(|(_, a), (_, b)| a.cost.total_cmp(&b.cost).then(a.latency.total_cmp(&b.latency)));
    let mut least: Option<f64> = None;
    rising.retain(|(_, point)| {
        let better = least.is_none_or(|least| point.latency < least);
        if better {
            least = Some(point.latency);
        }
        better
    });
    rising.into_iter().map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(points: &[(f64, f64)]) -> Vec<Point> {
        points.iter().map(|&(cost, latency)| Point { cost, latency }).collect()
    }

    #[test]
    fn what_is_beaten_is_not_on_it() {
        let points = points(&[
            (9.0, 1.0),
            (3.0, 3.0),
            (4.0, 3.0),
            (3.0, 4.0),
            (1.0, 8.0),
            (9.0, 1.0),
            (f64::NAN, 0.0),
        ]);
        assert_eq!(front(&points), [4, 1, 0]);
        assert!(front(&[]).is_empty());
    }

    #[test]
    fn it_is_what_comparing_all_with_all_says() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let points: Vec<_> = (0..30)
                .map(|_| Point { cost: f64::from(random.u8(..20)), latency: f64::from(random.u8(..20)) })
                .collect();
            let beaten = |a: &Point| {
                points.iter().any(|b| {
                    b.cost <= a.cost && b.latency <= a.latency && (b.cost < a.cost || b.latency < a.latency)
                })
            };
            let mut all: Vec<_> = points.iter().filter(|point| !beaten(point)).copied().collect();
            all.sort_by(|a, b| a.cost.total_cmp(&b.cost));
            all.dedup();
            let found: Vec<_> = front(&points).into_iter().map(|index| points[index]).collect();
            assert_eq!(found, all);
        }
    }
}
