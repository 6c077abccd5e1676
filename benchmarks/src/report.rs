//! What a load has cost, and how it is said.

use std::fmt;

/// Fewer samples than this have no 99th percentile: it would be their maximum.
const P99_SAMPLES: usize = 100;

/// What a load has cost its scheduler.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) cpu_ms_per_pod: f64,
    /// Of the API server, for everybody's requests while the load ran.
    pub(crate) apiserver_ms_per_pod: f64,
    pub(crate) pods_per_second: f64,
    /// Reply of the create to bound, of each pod or gang, sorted, milliseconds.
    pub(crate) latencies_ms: Vec<f64>,
    /// Quantiles of the scheduler's own metric of the same, milliseconds; none where it has counted nothing.
    pub(crate) own_p50_ms: Option<f64>,
    pub(crate) own_p99_ms: Option<f64>,
    /// Of the process so far, MiB.
    pub(crate) peak_mib: f64,
    /// Events about the pods in the end.
    pub(crate) events: usize,
}

impl Measured {
    pub(crate) fn p50_ms(&self) -> f64 {
        median(&self.latencies_ms)
    }

    /// The smallest sample that 99 of 100 do not exceed; not a number of too few.
    pub(crate) fn p99_ms(&self) -> f64 {
        let samples = self.latencies_ms.len();
        if samples < P99_SAMPLES { f64::NAN } else { self.latencies_ms[(samples * 99).div_ceil(100) - 1] }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let samples = self.latencies_ms.len();
        let (name, high) = if samples < P99_SAMPLES {
            ("max", self.latencies_ms.last().copied().unwrap_or(f64::NAN))
        } else {
            ("p99", self.p99_ms())
        };
        write!(
            f,
            "{:>7.3} CPU ms/pod  API server {:>6.3}  {:>6.0} pods/s  create->bound p50 {:>7.1} ms  {name} {high:>8.1} ms  n {samples:>5}",
            self.cpu_ms_per_pod,
            self.apiserver_ms_per_pod,
            self.pods_per_second,
            self.p50_ms(),
        )?;
        if let (Some(p50), Some(p99)) = (self.own_p50_ms, self.own_p99_ms) {
            write!(f, "  own metric p50 {p50:>7.1} ms  p99 {p99:>8.1} ms")?;
        }
        write!(f, "  peak {:>6.1} MiB  events {:>5}", self.peak_mib, self.events)
    }
}

/// A line of the table at the end.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) what: String,
    /// What FlowForge is measured against.
    pub(crate) theirs: String,
    pub(crate) ours: String,
    pub(crate) ratio: f64,
    pub(crate) goal: Goal,
}

/// What a ratio is to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// It is said beside the others.
    None,
}

impl Row {
    /// The table, in Markdown.
    pub(crate) fn table(rows: &[Self]) -> String {
        let mut table = String::from("| | against | FlowForge | ratio | goal | |\n|---|---|---|---|---|---|\n");
        for row in rows {
            table.push_str(&format!("{row}\n"));
        }
        table
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (goal, reached) = match self.goal {
            Goal::AtMost(most) => (format!("<= {most:.3}"), Some(self.ratio <= most)),
            Goal::AtLeast(least) => (format!(">= {least:.2}"), Some(self.ratio >= least)),
            Goal::None => (String::new(), None),
        };
        let reached = match reached {
            _ if self.ratio.is_nan() => "not known",
            Some(true) => "reached",
            Some(false) => "missed",
            None => "",
        };
        let Self { what, theirs, ours, ratio, .. } = self;
        write!(f, "| {what} | {theirs} | {ours} | {ratio:.3} | {goal} | {reached} |")
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

/// The same of values in any order.
pub(crate) fn median_of(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    median(&sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(samples: u32) -> Measured {
        let latencies_ms = (1..=samples).map(f64::from).collect();
        let [cpu_ms_per_pod, apiserver_ms_per_pod, pods_per_second, peak_mib] = [1.0; 4];
        Measured {
            cpu_ms_per_pod,
            apiserver_ms_per_pod,
            pods_per_second,
            latencies_ms,
            own_p50_ms: None,
            own_p99_ms: None,
            peak_mib,
            events: 1,
        }
    }

    #[test]
    fn a_maximum_is_not_called_p99() {
        let (few, many) = (measured(50).to_string(), measured(300).to_string());
        assert!(few.contains("p50    25.5 ms  max     50.0 ms  n    50"), "{few}");
        assert!(many.contains("p50   150.5 ms  p99    297.0 ms  n   300"), "{many}");
        assert!(measured(50).p99_ms().is_nan());
    }

    #[test]
    fn the_median_of_an_even_number_is_between_two() {
        assert_eq!(median(&[1.0, 2.0, 9.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
        assert!(median(&[]).is_nan());
        assert_eq!(median_of([9.0, 1.0, 2.0].into_iter()), 2.0);
    }

    #[test]
    fn a_row_says_whether_its_goal_is_reached() {
        let row = |ratio, goal| Row { what: "w".into(), theirs: "2".into(), ours: "1".into(), ratio, goal }.to_string();
        assert_eq!(row(0.1, Goal::AtMost(0.125)), "| w | 2 | 1 | 0.100 | <= 0.125 | reached |");
        assert_eq!(row(0.8, Goal::AtLeast(0.9)), "| w | 2 | 1 | 0.800 | >= 0.90 | missed |");
        assert_eq!(row(f64::NAN, Goal::AtLeast(0.9)), "| w | 2 | 1 | NaN | >= 0.90 | not known |");
        assert_eq!(row(0.5, Goal::None), "| w | 2 | 1 | 0.500 |  |  |");
    }
}
