//! The process's metric registry, and the metrics that every process has.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Encoder, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use std::time::{SystemTime, UNIX_EPOCH};

/// Kernel ticks per second in `/proc/self/stat`; fixed at 100 in the interface to user space on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// The registry of one process; clones share it.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
}

/// Registers a collector and gives it back.
///
/// # Errors
/// When a collector of that name exists.
pub fn register<C: Collector + Clone + 'static>(metrics: &Metrics, collector: C) -> prometheus::Result<C> {
    metrics.registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// Upper bounds of `count` buckets: `first`, then twice as much each.
#[must_use]
pub fn doubling_buckets(first: f64, count: usize) -> Vec<f64> {
    std::iter::successors(Some(first), |bound| Some(bound * 2.0)).take(count).collect()
}

impl Metrics {
    /// A registry with `flowforge_build_info` and the process's own CPU, memory and descriptors.
    ///
    /// # Errors
    /// Never in practice: the names are constant and valid.
    pub fn new(component: &str, version: &str) -> prometheus::Result<Self> {
        let metrics = Self { registry: Registry::new() };
        let options = Opts::new("flowforge_build_info", "Always 1; labels say what runs.");
        let info = register(&metrics, IntGaugeVec::new(options, &["component", "version"])?)?;
        info.with_label_values(&[component, version]).set(1);
        metrics.registry.register(Box::new(ProcessCollector::new()?))?;
        Ok(metrics)
    }

    /// Everything in the text format.
    ///
    /// # Errors
    /// When a metric cannot be encoded.
    pub fn encode(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

/// CPU, memory, descriptors and start time of this process, read from /proc at every scrape.
struct ProcessCollector {
    cpu: Counter,
    resident: IntGauge,
    peak: IntGauge,
    descriptors: IntGauge,
    started: IntGauge,
}

impl ProcessCollector {
    fn new() -> prometheus::Result<Self> {
        let started = IntGauge::new("process_start_time_seconds", "Start time, in seconds since the Unix epoch.")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        started.set(i64::try_from(now).unwrap_or_default());
        Ok(Self {
            cpu: Counter::new("process_cpu_seconds_total", "User and system CPU time spent, in seconds.")?,
            resident: IntGauge::new("process_resident_memory_bytes", "Resident memory, in bytes.")?,
            peak: IntGauge::new("process_resident_memory_peak_bytes", "Largest resident memory so far, in bytes.")?,
            descriptors: IntGauge::new("process_open_fds", "Open file descriptors.")?,
            started,
        })
    }

    fn all(&self) -> [&dyn Collector; 5] {
        [&self.cpu, &self.resident, &self.peak, &self.descriptors, &self.started]
    }

    fn read(&self) {
        if let Some(seconds) = std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| cpu_seconds(&stat)) {
            self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        self.resident.set(status_bytes(&status, "VmRSS:"));
        self.peak.set(status_bytes(&status, "VmHWM:"));
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        self.descriptors.set(i64::try_from(open).unwrap_or_default());
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}

/// utime and stime of a `/proc/PID/stat` line; the command in brackets may itself contain blanks and brackets.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let after_command = stat.rsplit_once(')')?.1;
    let mut fields = after_command.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn status_bytes(status: &str, key: &str) -> i64 {
    let kilobytes = status.lines().find_map(|line| line.strip_prefix(key));
    kilobytes.and_then(|rest| rest.split_whitespace().next()?.parse::<i64>().ok()).map_or(0, |kb| kb * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_double() {
        assert_eq!(doubling_buckets(0.001, 4), [0.001, 0.002, 0.004, 0.008]);
    }

    #[test]
    fn cpu_time_is_read_behind_a_command_with_brackets() {
        let stat = "12 (a) b (c) S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 100 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("nonsense"), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(status_bytes("VmPeak:\t 10 kB\nVmRSS:\t   2048 kB\n", "VmRSS:"), 2 * 1024 * 1024);
        assert_eq!(status_bytes("", "VmRSS:"), 0);
    }

    #[test]
    fn the_text_format_holds_what_was_registered_and_refuses_doubles() {
        let metrics = Metrics::new("test", "1").expect("constant names");
        let gauge = register(&metrics, IntGauge::new("flowforge_test", "A test.").expect("valid")).expect("new");
        gauge.set(3);
        let text = metrics.encode().expect("encodes");
        assert!(text.contains("flowforge_test 3"), "{text}");
        assert!(text.contains("flowforge_build_info{component=\"test\",version=\"1\"} 1"), "{text}");
        assert!(text.contains("process_cpu_seconds_total"), "{text}");
        assert!(register(&metrics, IntGauge::new("flowforge_test", "A test.").expect("valid")).is_err());
    }
}
