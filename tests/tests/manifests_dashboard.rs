//! A real Prometheus scrapes both binaries, and every query of the Grafana dashboard returns data. promtool finds nothing
//! wrong with what they serve. Both come with Debian's package `prometheus`; without it the test is skipped.

use anyhow::{Context as _, Result, ensure};
use flowforge_api::Workflow;
use flowforge_testbed::{ProcessSpec, Profile, Testbed};
use flowforge_tests::install::{Installation, Options, repository};
use flowforge_tests::{eventually, metrics, skip};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_the_dashboard_returns_data() {
    for program in ["prometheus", "promtool"] {
        if Command::new(program).arg("--version").output().is_err() {
            return skip("prometheus", &format!("there is no {program} here (Debian: apt-get install prometheus)"));
        }
    }
    let testbed = Testbed::builder().nodes(Profile::DgxH100, 4).start().await.expect("a testbed");
    let installed = Installation::install(&testbed, Options::default()).await.expect("FlowForge");
    let prometheus = start(&testbed, &installed).await.expect("prometheus");
    work(&testbed).await.expect("something to measure");
    let queries = queries().expect("the dashboard");
    assert!(queries.len() > 30, "only {} queries", queries.len());
    for (panel, query) in queries {
        returns_data(prometheus, &query).await.unwrap_or_else(|error| panic!("{panel}: {query}: {error:#}"));
    }
    for address in [installed.scheduler, installed.controller] {
        let text = metrics::get(address, "/metrics").await.expect("metrics");
        promtool(&text).unwrap_or_else(|error| panic!("{address}: {error:#}"));
    }
}

/// Starts Prometheus with the jobs named as the Services are.
async fn start(testbed: &Testbed, installed: &Installation<'_>) -> Result<SocketAddr> {
    let job = |name: &str, target: SocketAddr| json!({"job_name": name, "static_configs": [{"targets": [target.to_string()]}]});
    let config = json!({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [
            job("flowforge-scheduler", installed.scheduler),
            job("flowforge-dag-controller", installed.controller),
        ],
    });
    let file = testbed.dir().join("prometheus.yml");
    std::fs::write(&file, config.to_string())?;
    let address = testbed.network().at(11_090);
    let spec = ProcessSpec::new("prometheus", "prometheus")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", testbed.dir().join("prometheus").display()))
        .arg(format!("--web.listen-address={address}"));
    testbed.spawn(spec)?;
    // A rate needs a scrape from before the work began.
    eventually("prometheus has scraped both binaries", LIMIT, || async {
        let found = query(address, "count(up == 1)").await.map_err(|error| format!("{error:#}"))?;
        if value(&found) == Some(2.0) { Ok(()) } else { Err(found.to_string()) }
    })
    .await?;
    Ok(address)
}

/// A workflow of a gang and a single pod that runs to its end, one that does not fit, and one that is refused.
async fn work(testbed: &Testbed) -> Result<()> {
    let workflows: Api<Workflow> = Api::namespaced(testbed.client().clone(), "default");
    let workflow = |name: &str, nodes: Value| -> Result<Workflow> {
        let object = json!({"metadata": {"name": name}, "spec": {"nodes": nodes}});
        Ok(serde_json::from_value(object)?)
    };
    let gpus = |count: i32| json!({"limits": {"nvidia.com/gpu": count}});
    let train = json!({"id": "train", "replicas": 4, "image": "i", "resources": gpus(8)});
    let eval = json!({"id": "eval", "image": "i", "dependsOn": ["train"]});
    workflows.create(&PostParams::default(), &workflow("runs", json!([train, eval]))?).await?;
    let wide = json!({"id": "wide", "replicas": 5, "image": "i", "resources": gpus(8)});
    workflows.create(&PostParams::default(), &workflow("waits", json!([wide]))?).await?;
    let refused =
        workflows.create(&PostParams::default(), &workflow("bad", json!([{"id": "a", "replicas": 1}]))?).await;
    ensure!(refused.is_err(), "a workflow without an image was accepted");
    eventually("the workflow ends", LIMIT, || async {
        let status = workflows.get_status("runs").await.map_err(|error| error.to_string())?.status.unwrap_or_default();
        let phase = format!("{:?}", status.phase);
        if phase == "Some(Succeeded)" { Ok(()) } else { Err(phase) }
    })
    .await
}

/// Every query of every panel with the panel's title; Grafana's interval is replaced by a minute.
fn queries() -> Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(repository().join("manifests/components/dashboard/flowforge.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().context("panels")? {
        let title = panel["title"].as_str().context("title")?;
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().context("expr")?.replace("$__rate_interval", "1m");
            queries.push((title.to_owned(), query));
        }
    }
    Ok(queries)
}

/// At least one series with a number: an absent metric gives none, a quantile of nothing is NaN.
async fn returns_data(prometheus: SocketAddr, text: &str) -> Result<()> {
    eventually("it returns data", Duration::from_secs(20), || async {
        let found = query(prometheus, text).await.map_err(|error| format!("{error:#}"))?;
        if value(&found).is_some() { Ok(()) } else { Err(found.to_string()) }
    })
    .await
}

fn value(found: &Value) -> Option<f64> {
    let series = found.as_array()?.iter();
    series.filter_map(|one| one["value"][1].as_str()?.parse::<f64>().ok()).find(|number| number.is_finite())
}

async fn query(prometheus: SocketAddr, text: &str) -> Result<Value> {
    let escaped: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let answer = metrics::get(prometheus, &format!("/api/v1/query?query={escaped}")).await?;
    let answer: Value = serde_json::from_str(&answer)?;
    ensure!(answer["status"] == "success", "{answer}");
    Ok(answer["data"]["result"].clone())
}

fn promtool(text: &str) -> Result<()> {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("promtool")?;
    child.stdin.take().context("stdin")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(output.status.success() && said.trim().is_empty(), "{said}");
    Ok(())
}
