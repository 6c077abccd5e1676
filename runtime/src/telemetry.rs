//! Logging: tracing as text or JSON on stderr, with a filter that can be changed while the process runs.

use crate::flags::LogFormat;
use std::sync::Arc;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// Changes the log filter at run time.
#[derive(Clone)]
pub struct LogHandle {
    set: Arc<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
    get: Arc<dyn Fn() -> String + Send + Sync>,
}

impl LogHandle {
    /// Replaces the filter.
    ///
    /// # Errors
    /// When the text is no valid filter.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        (self.set)(parse(filter)?)
    }

    /// The filter in use.
    #[must_use]
    pub fn get(&self) -> String {
        (self.get)()
    }
}

/// Starts logging for the process.
///
/// # Errors
/// When the filter is invalid or logging was already started.
pub fn init(filter: &str, format: LogFormat) -> Result<LogHandle, String> {
    let (filter, handle) = reload::Layer::<EnvFilter, Registry>::new(parse(filter)?);
    let output = match format {
        LogFormat::Text => fmt::layer().with_writer(std::io::stderr).with_ansi(is_terminal()).boxed(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(output)
        .try_init()
        .map_err(|error| format!("logging was already started: {error}"))?;
    Ok(handle_of(handle))
}

fn handle_of(handle: reload::Handle<EnvFilter, Registry>) -> LogHandle {
    let reader = handle.clone();
    LogHandle {
        set: Arc::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())),
        get: Arc::new(move || reader.with_current(ToString::to_string).unwrap_or_default()),
    }
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(filter).map_err(|error| format!("log filter {filter:?}: {error}"))
}

fn is_terminal() -> bool {
    use std::io::IsTerminal;
    std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_replaced_only_by_a_valid_one() {
        let (layer, handle) = reload::Layer::<EnvFilter, Registry>::new(parse("info").expect("a level"));
        let _keep = tracing_subscriber::registry().with(layer);
        let handle = handle_of(handle);
        handle.set("warn,kube=debug").expect("valid directives");
        assert_eq!(handle.get(), "kube=debug,warn");
        assert!(handle.set("kube=loud").expect_err("no such level").contains("kube=loud"));
        assert_eq!(handle.get(), "kube=debug,warn");
    }
}
