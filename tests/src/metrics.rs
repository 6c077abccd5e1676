//! Reading a binary's `/metrics` (Prometheus text format) as a person's dashboard would.

use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One scrape: every sample with its labels as written.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    samples: Vec<(String, String, f64)>,
}

impl Scrape {
    /// Scrapes `http://ADDRESS/metrics`.
    ///
    /// # Errors
    /// When nobody answers there with 200.
    pub async fn of(address: SocketAddr) -> Result<Self> {
        Ok(Self::parse(&get(address, "/metrics").await?))
    }

    /// Parses the text format; comment lines and lines that are no sample are skipped.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            Some((name.to_owned(), labels.trim_end_matches('}').to_owned(), value.parse().ok()?))
        });
        Self { samples: samples.collect() }
    }

    /// Sum of all samples of `name` whose labels contain `labels` (a part of the label text, or empty).
    #[must_use]
    pub fn sum(&self, name: &str, labels: &str) -> f64 {
        self.samples.iter().filter(|(n, l, _)| n == name && l.contains(labels)).map(|(_, _, v)| v).sum()
    }

    /// Whether any sample has this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|(n, _, _)| n == name)
    }

    /// What was counted since an earlier scrape of the same process: each sample less its earlier value. For counters and
    /// histograms only.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before: BTreeMap<(&str, &str), f64> =
            earlier.samples.iter().map(|(name, labels, value)| ((name.as_str(), labels.as_str()), *value)).collect();
        let samples = self.samples.iter().map(|(name, labels, value)| {
            let less = before.get(&(name.as_str(), labels.as_str())).copied().unwrap_or_default();
            (name.clone(), labels.clone(), value - less)
        });
        Self { samples: samples.collect() }
    }

    /// Quantile of a histogram over all its series, in the histogram's unit: linear inside a bucket, as PromQL does.
    /// None where nothing was observed.
    #[must_use]
    pub fn quantile(&self, histogram: &str, quantile: f64) -> Option<f64> {
        let name = format!("{histogram}_bucket");
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (_, labels, count) in self.samples.iter().filter(|(n, _, _)| *n == name) {
            let edge = labels.split("le=\"").nth(1)?.split('"').next()?;
            let edge: f64 = if edge == "+Inf" { f64::INFINITY } else { edge.parse().ok()? };
            match buckets.iter_mut().find(|(e, _)| *e == edge) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((edge, *count)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total = buckets.last()?.1;
        if total <= 0.0 {
            return None;
        }
        let rank = quantile * total;
        let (mut low, mut below) = (0.0, 0.0);
        for (edge, count) in buckets {
            if count >= rank {
                return Some(if edge.is_infinite() {
                    low
                } else {
                    low + (edge - low) * (rank - below) / (count - below)
                });
            }
            (low, below) = (edge, count);
        }
        None
    }
}

/// GET over plain HTTP/1.1; returns the body.
///
/// # Errors
/// When nobody answers or the status is not 200.
pub async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: text/plain\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200") {
        bail!("GET {path} at {address}: {status}");
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE x histogram\nx_bucket{le=\"1\"} 1\nx_bucket{le=\"2\"} 3\nx_bucket{le=\"+Inf\"} 4\nx_sum 6\nx_count 4\ny{a=\"b\"} 2\ny{a=\"c\"} 3\n";

    #[test]
    fn samples_are_summed_over_labels() {
        let scrape = Scrape::parse(TEXT);
        assert_eq!(scrape.sum("y", ""), 5.0);
        assert_eq!(scrape.sum("y", "a=\"c\""), 3.0);
        assert!(scrape.has("x_sum") && !scrape.has("x"));
    }

    #[test]
    fn what_was_counted_since_does_not_contain_what_was_there_before() {
        let later = Scrape::parse(
            "x_bucket{le=\"1\"} 1\nx_bucket{le=\"2\"} 5\nx_bucket{le=\"+Inf\"} 6\nx_count 6\nnew{a=\"b\"} 7\n",
        );
        let since = later.since(&Scrape::parse(TEXT));
        assert_eq!((since.sum("x_count", ""), since.sum("new", "")), (2.0, 7.0));
        assert_eq!(since.quantile("x", 0.5), Some(1.5));
    }

    #[test]
    fn a_quantile_is_linear_inside_its_bucket() {
        let scrape = Scrape::parse(TEXT);
        assert_eq!(scrape.quantile("x", 0.5), Some(1.5));
        assert_eq!(scrape.quantile("x", 1.0), Some(2.0));
        assert_eq!(scrape.quantile("none", 0.5), None);
    }
}
