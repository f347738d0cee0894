//! [`Durations`]: a lock-free histogram of durations. Every response that had to wait records into it; the
//! histogram of `prometheus_client` takes a mutex, which the threads of a fan-out would contend for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// A histogram of `N` buckets whose bounds double; the last one is unbounded. Clones share the counts.
#[derive(Debug, Clone)]
pub(super) struct Durations<const N: usize>(Arc<BucketCounts<N>>);

#[derive(Debug)]
struct BucketCounts<const N: usize> {
    first_nanoseconds: u64,
    buckets: [AtomicU64; N],
    sum_nanoseconds: AtomicU64,
}

impl<const N: usize> Durations<N> {
    /// Creates a histogram. The first bucket ends at `first`, each further one at twice the previous bound.
    pub(super) fn from(first: Duration) -> Self {
        let buckets = std::array::from_fn(|_| AtomicU64::new(0));
        let first_nanoseconds = nanoseconds(first).max(1);
        Self(Arc::new(BucketCounts { first_nanoseconds, buckets, sum_nanoseconds: AtomicU64::new(0) }))
    }

    pub(super) fn observe(&self, duration: Duration) {
        let duration = nanoseconds(duration);
        // Number of doublings of the first bound needed to reach `duration`.
        let doubled = u64::BITS - (duration.saturating_sub(1) / self.0.first_nanoseconds).leading_zeros();
        let bucket = self.0.buckets.get(doubled as usize).or(self.0.buckets.last());
        bucket.map(|count| count.fetch_add(1, Ordering::Relaxed));
        self.0.sum_nanoseconds.fetch_add(duration, Ordering::Relaxed);
    }
}

impl<const N: usize> Durations<N> {
    /// The upper bound of the first bucket in seconds, and the count of each bucket.
    pub(super) fn counts(&self) -> (f64, [u64; N]) {
        let counts = self.0.buckets.each_ref().map(|count| count.load(Ordering::Relaxed));
        (self.0.first_nanoseconds as f64 / 1e9, counts)
    }
}

impl<const N: usize> EncodeMetric for Durations<N> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        let first = self.0.first_nanoseconds as f64 / 1e9;
        let bound = |doubled: usize| {
            if doubled + 1 == N { f64::INFINITY } else { first * 2_f64.powi(doubled as i32) }
        };
        let counts = self.0.buckets.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<_> = counts.enumerate().map(|(doubled, count)| (bound(doubled), count)).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.0.sum_nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl<const N: usize> TypedMetric for Durations<N> {
    const TYPE: MetricType = MetricType::Histogram;
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
    use prometheus_client::registry::Registry;

    use super::*;

    /// Encodes a metric as it is scraped.
    fn text(metric: impl prometheus_client::registry::Metric) -> String {
        let mut registry = Registry::default();
        registry.register("it", "It", metric);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn it_encodes_like_the_histogram_of_the_library() {
        let (own, library) = (
            Durations::<5>::from(Duration::from_millis(1)),
            Histogram::new(exponential_buckets(0.001, 2.0, 4)),
        );
        for microseconds in [0, 1, 999, 1000, 1001, 2000, 2001, 4000, 5000, 8000, 8001, 1_000_000] {
            let duration = Duration::from_micros(microseconds);
            own.observe(duration);
            library.observe(duration.as_secs_f64());
        }
        assert_eq!(text(own), text(library));
    }
}
