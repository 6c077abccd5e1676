//! One testbed for the tests of a binary that do not disturb each other.
//!
//! Starting a control plane costs about six seconds of CPU time. A `kube::Client`
//! lives on the runtime that it was made on, and `#[tokio::test]` makes one for
//! each test; so tests that share a testbed share its runtime, too:
//!
//! ```no_run
//! use std::sync::LazyLock;
//! use flowforge_testbed::{Profile, Shared, Testbed};
//!
//! static CLUSTER: LazyLock<Shared> = LazyLock::new(|| Shared::start(Testbed::builder().nodes(Profile::Cpu, 4)));
//!
//! #[test]
//! fn the_api_server_answers() {
//!     CLUSTER.run(async |testbed| testbed.client().apiserver_version().await.unwrap());
//! }
//! ```
//!
//! A static is never dropped: the testbed goes when the process ends.

use std::thread;

use tokio::runtime::{self, Runtime};

use crate::{Builder, Testbed};

/// A testbed with a runtime of its own.
#[derive(Debug)]
pub struct Shared {
    runtime: Runtime,
    testbed: Testbed,
}

impl Shared {
    /// Starts the testbed.
    ///
    /// # Panics
    /// When it does not start: every test that uses it fails with the reason.
    #[must_use]
    #[expect(clippy::expect_used, reason = "called in a LazyLock, whose only way to fail is to panic")]
    pub fn start(builder: Builder) -> Self {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let testbed = runtime.block_on(builder.start()).expect("the shared testbed starts");
        Self { runtime, testbed }
    }

    /// Runs a test. If it panics, the testbed's logs are kept.
    pub fn run<T>(&self, test: impl AsyncFnOnce(&Testbed) -> T) -> T {
        let _logs = KeepLogs(&self.testbed);
        self.runtime.block_on(test(&self.testbed))
    }
}

struct KeepLogs<'a>(&'a Testbed);

impl Drop for KeepLogs<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("testbed: the logs will be in {}", self.0.keep_logs().display());
        }
    }
}
