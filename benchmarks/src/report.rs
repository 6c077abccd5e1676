//! What a load has cost, and how it is said.

use std::fmt;

/// Fewer samples than this have no 99th percentile: it would be their maximum.
const P99_SAMPLES: usize = 100;

/// What a load has cost its scheduler.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) cpu_ms_per_pod: f64,
    pub(crate) pods_per_second: f64,
    /// Create to bound, of each pod or gang, sorted, milliseconds.
    pub(crate) latencies_ms: Vec<f64>,
    /// Quantiles of the scheduler's own metric of the same, milliseconds; none where it has counted nothing.
    pub(crate) own_p50_ms: Option<f64>,
    pub(crate) own_p99_ms: Option<f64>,
    /// Of the process so far, MiB.
    pub(crate) peak_mib: f64,
}

impl Measured {
    pub(crate) fn p50_ms(&self) -> f64 {
        median(&self.latencies_ms)
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let samples = self.latencies_ms.len();
        let (name, high) = if samples < P99_SAMPLES {
            ("max", self.latencies_ms.last().copied().unwrap_or(f64::NAN))
        } else {
            // The smallest sample that 99 of 100 do not exceed.
            ("p99", self.latencies_ms[(samples * 99).div_ceil(100) - 1])
        };
        write!(
            f,
            "{:>7.3} CPU ms/pod  {:>6.0} pods/s  create->bound p50 {:>7.1} ms  {name} {high:>8.1} ms  n {samples:>5}",
            self.cpu_ms_per_pod,
            self.pods_per_second,
            self.p50_ms(),
        )?;
        if let (Some(p50), Some(p99)) = (self.own_p50_ms, self.own_p99_ms) {
            write!(f, "  own metric p50 {p50:>7.1} ms  p99 {p99:>8.1} ms")?;
        }
        write!(f, "  peak {:>6.1} MiB", self.peak_mib)
    }
}

/// Of sorted values; of an even number the mean of the two in the middle. Not a number where there are none.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    match sorted.len() % 2 {
        _ if sorted.is_empty() => f64::NAN,
        0 => f64::midpoint(sorted[half - 1], sorted[half]),
        _ => sorted[half],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(samples: u32) -> String {
        let latencies_ms = (1..=samples).map(f64::from).collect();
        let [cpu_ms_per_pod, pods_per_second, peak_mib] = [1.0; 3];
        Measured { cpu_ms_per_pod, pods_per_second, latencies_ms, own_p50_ms: None, own_p99_ms: None, peak_mib }
            .to_string()
    }

    #[test]
    fn a_maximum_is_not_called_p99() {
        assert!(measured(50).contains("p50    25.5 ms  max     50.0 ms  n    50"), "{}", measured(50));
        assert!(measured(300).contains("p50   150.5 ms  p99    297.0 ms  n   300"), "{}", measured(300));
    }

    #[test]
    fn the_median_of_an_even_number_is_between_two() {
        assert_eq!(median(&[1.0, 2.0, 9.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
        assert!(median(&[]).is_nan());
    }
}
