//! Traces: what jobs were submitted when, how wide they were and how long they ran.
//!
//! Two formats are told apart by their first line: `num_gpu,submit_time,…,duration` in milliseconds (the traces of Muri,
//! SIGCOMM 2022) and `timestamp,duration,num_gpus` with a date and seconds (what AdaptDL derived from Microsoft's Philly
//! traces). Other columns are skipped.

use crate::prng::Prng;
use flowforge_scheduler_core::model::Millis;
use jiff::civil::DateTime;
use std::collections::BTreeMap;

/// A job of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Submission, in milliseconds since the first one.
    pub submit_ms: Millis,
    /// How long it runs.
    pub run_ms: Millis,
    /// GPUs that it needs at once.
    pub gpus: u32,
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TraceError {
    /// The first line names no columns of a known format.
    #[error("line 1: expected the columns num_gpu, submit_time and duration, or timestamp, duration and num_gpus")]
    UnknownFormat,
    /// A value is missing or cannot be read.
    #[error("line {line}: column {column} should be {expected}, is {found:?}")]
    Value {
        /// The line, from 1.
        line: usize,
        /// The column.
        column: &'static str,
        /// What should stand there.
        expected: &'static str,
        /// What does.
        found: String,
    },
}

/// Reads a trace: jobs in the order of their submission. Jobs that need no GPU are left out.
///
/// # Errors
/// The first line that cannot be read.
pub fn parse(text: &str) -> Result<Vec<Job>, TraceError> {
    let mut lines = (1..).zip(text.lines());
    let head = lines.next().map(|(_, line)| line).unwrap_or_default();
    let columns: BTreeMap<&str, usize> = head.split(',').enumerate().map(|(at, name)| (name.trim(), at)).collect();
    let has = |names: [&str; 3]| names.iter().all(|name| columns.contains_key(name));
    let in_millis = has(["num_gpu", "submit_time", "duration"]);
    if !in_millis && !has(["timestamp", "duration", "num_gpus"]) {
        return Err(TraceError::UnknownFormat);
    }
    let mut jobs = Vec::new();
    for (line, row) in lines.filter(|(_, row)| !row.trim().is_empty()) {
        let cells: Vec<&str> = row.split(',').map(str::trim).collect();
        let cell =
            |column: &'static str| columns.get(column).and_then(|at| cells.get(*at)).copied().unwrap_or_default();
        let row = Row { line, cell: &cell };
        jobs.push(if in_millis {
            Job {
                submit_ms: row.amount("submit_time", 1)?,
                run_ms: row.amount("duration", 1)?,
                gpus: row.gpus("num_gpu")?,
            }
        } else {
            Job {
                submit_ms: row.date("timestamp")?,
                run_ms: row.amount("duration", 1_000)?,
                gpus: row.gpus("num_gpus")?,
            }
        });
    }
    jobs.retain(|job| job.gpus > 0);
    jobs.sort_by_key(|job| job.submit_ms);
    let first = jobs.first().map_or(0, |job| job.submit_ms);
    jobs.iter_mut().for_each(|job| job.submit_ms -= first);
    Ok(jobs)
}

struct Row<'a> {
    line: usize,
    cell: &'a dyn Fn(&'static str) -> &'a str,
}

impl Row<'_> {
    fn wrong(&self, column: &'static str, expected: &'static str) -> TraceError {
        TraceError::Value { line: self.line, column, expected, found: (self.cell)(column).chars().take(40).collect() }
    }

    /// A whole number, or one with a fraction that is cut off, times so many.
    fn amount(&self, column: &'static str, times: u64) -> Result<u64, TraceError> {
        let whole = (self.cell)(column).split('.').next().unwrap_or_default();
        let amount: u64 = whole.parse().map_err(|_| self.wrong(column, "a number of at least 0"))?;
        Ok(amount.saturating_mul(times))
    }

    fn gpus(&self, column: &'static str) -> Result<u32, TraceError> {
        (self.cell)(column).parse().map_err(|_| self.wrong(column, "a whole number of at least 0"))
    }

    fn date(&self, column: &'static str) -> Result<Millis, TraceError> {
        let wrong = || self.wrong(column, "a date and time such as 2017-10-09 07:01:55");
        let at = DateTime::strptime("%Y-%m-%d %H:%M:%S", (self.cell)(column)).map_err(|_| wrong())?;
        let since = at.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| wrong())?.timestamp().as_millisecond();
        u64::try_from(since).map_err(|_| wrong())
    }
}

/// Moves submissions together, or apart, so that so many hundredths of the GPUs are asked for on average while jobs arrive.
pub fn set_load(jobs: &mut [Job], gpus: u32, percent: u64) {
    let asked: u128 = jobs.iter().map(|job| u128::from(job.run_ms) * u128::from(job.gpus)).sum();
    let span = jobs.iter().map(|job| job.submit_ms).max().unwrap_or(0);
    let wanted = asked * 100 / (u128::from(gpus) * u128::from(percent)).max(1);
    for job in jobs.iter_mut().filter(|_| span > 0) {
        let moved = u128::from(job.submit_ms) * wanted / u128::from(span);
        job.submit_ms = u64::try_from(moved).unwrap_or(u64::MAX);
    }
}

/// A made-up trace: mostly narrow and short jobs, some that are wide or long, none wider than so many GPUs; a cluster of that size has
/// a little more to do than it can.
#[must_use]
pub fn generated(seed: u64, jobs: usize, gpus: u32) -> Vec<Job> {
    let mut prng = Prng::new(seed ^ 0x7_2ace);
    let mut made = Vec::with_capacity(jobs);
    for _ in 0..jobs {
        let width = match prng.below(20) {
            0..8 => 1,
            8..11 => 2,
            11..14 => 4,
            14..17 => 8,
            17..19 => 8 * prng.between(2, 4),
            _ => u64::from(gpus) * prng.between(2, 4) / 4,
        };
        let minutes = match prng.below(10) {
            0..6 => prng.between(1, 30),
            6..9 => prng.between(20, 240),
            _ => prng.between(120, 900),
        };
        let gpus = u32::try_from(width).unwrap_or(1).clamp(1, gpus);
        made.push(Job { submit_ms: prng.below(1_000_000), run_ms: minutes * 60_000 + prng.below(60_000), gpus });
    }
    made.sort_by_key(|job| job.submit_ms);
    set_load(&mut made, gpus, 110);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read() {
        let muri = "job_id,num_gpu,submit_time,iterations,duration\n0,8,5000,9,60000\n1,1,2000,9,70000\n2,0,1,1,1\n";
        assert_eq!(
            parse(muri),
            Ok(vec![Job { submit_ms: 0, run_ms: 70_000, gpus: 1 }, Job { submit_ms: 3_000, run_ms: 60_000, gpus: 8 }])
        );
        let philly = "timestamp,duration,num_gpus,gpu_time,cluster\n2017-10-09 07:01:55,66.0,16,66.0,a\n\n";
        assert_eq!(parse(philly), Ok(vec![Job { submit_ms: 0, run_ms: 66_000, gpus: 16 }]));
    }

    #[test]
    fn what_cannot_be_read_names_line_column_and_what_should_stand_there() {
        assert_eq!(parse("a,b\n"), Err(TraceError::UnknownFormat));
        let of = |row: &str| parse(&format!("timestamp,duration,num_gpus\n{row}\n")).unwrap_err().to_string();
        assert_eq!(of("2017-10-09 07:01:55,x,1"), "line 2: column duration should be a number of at least 0, is \"x\"");
        assert_eq!(
            of("yesterday,1,1"),
            "line 2: column timestamp should be a date and time such as 2017-10-09 07:01:55, is \"yesterday\""
        );
        assert_eq!(
            of("2017-10-09 07:01:55,1"),
            "line 2: column num_gpus should be a whole number of at least 0, is \"\""
        );
    }

    #[test]
    fn a_load_is_what_is_asked_for_on_average_while_jobs_arrive() {
        let mut jobs: Vec<Job> = (0..11).map(|at| Job { submit_ms: at * 100, run_ms: 1_000, gpus: 4 }).collect();
        set_load(&mut jobs, 8, 50);
        // 44,000 GPU milliseconds at 4 GPUs: 11 s.
        assert_eq!((jobs[0].submit_ms, jobs[10].submit_ms), (0, 11_000));
    }
}
