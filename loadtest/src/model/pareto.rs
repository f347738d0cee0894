//! The Pareto front of cost and latency: the points that no other point dominates.

/// A choice. Units are the caller's; less is better in both fields.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Cost, such as requests or joules per client-hour.
    pub cost: f64,
    /// Latency, such as the 95th percentile in microseconds.
    pub latency: f64,
}

/// Returns the indices of the points that no other point dominates, by ascending cost and so by descending latency.
///
/// A point dominates another if it is no worse in both fields and better in one. Of equal points the first is kept; latencies that differ
/// by less than the share `alike` are equal. `None` is a choice without figures, which is never on the front.
pub fn front(points: &[Option<Point>], alike: f64) -> Vec<usize> {
    let mut rising: Vec<_> =
        points.iter().enumerate().filter_map(|(index, point)| Some((index, (*point)?))).collect();
    rising.sort_by(|(_, a), (_, b)| a.cost.total_cmp(&b.cost).then(a.latency.total_cmp(&b.latency)));
    let mut least: Option<f64> = None;
    rising.retain(|(_, point)| {
        let better = least.is_none_or(|least| point.latency < least * (1.0 - alike));
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

    fn points(points: &[(f64, f64)]) -> Vec<Option<Point>> {
        points.iter().map(|&(cost, latency)| Some(Point { cost, latency })).collect()
    }

    #[test]
    fn dominated_points_are_not_on_the_front() {
        let mut points = points(&[(9.0, 1.0), (3.0, 3.0), (4.0, 3.0), (3.0, 4.0), (1.0, 8.0), (9.0, 1.0)]);
        points.push(None);
        assert_eq!(front(&points, 0.0), [4, 1, 0]);
        assert!(front(&[], 0.0).is_empty());
    }

    #[test]
    fn a_latency_that_is_hardly_less_is_no_better() {
        let points = points(&[(1.0, 100.0), (2.0, 96.0), (3.0, 94.0)]);
        assert_eq!(front(&points, 0.05), [0, 2]);
    }

    #[test]
    fn the_front_equals_a_comparison_of_all_pairs() {
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
            let some: Vec<_> = points.iter().copied().map(Some).collect();
            let found: Vec<_> = front(&some, 0.0).into_iter().map(|index| points[index]).collect();
            assert_eq!(found, all);
        }
    }
}
