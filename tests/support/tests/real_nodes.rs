//! Containers really run: devices, names, addresses, logs, exit codes.
//!
//! One testbed of 4 nodes serves all tests; each has a namespace of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails in a test's helper fails the test")]

mod common;

use std::{
    future::Future,
    sync::LazyLock,
    time::{Duration, Instant},
};

use common::{allocatable, await_phase, create, ending, eventually, log, namespace, pod, skipped, with_limits};
use flowforge_testbed::{
    Profile, Testbed,
    real::{WORKLOAD, pack_image},
};
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Service};
use kube::{Api, api::PostParams};
use serde_json::json;
use tokio::{runtime::Runtime, sync::OnceCell};

const NODES: usize = 4;
const FAKES: usize = 4;

/// The client of the shared testbed lives on it.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// Taken down by its supervisor when this process ends.
static TESTBED: OnceCell<Testbed> = OnceCell::const_new();

/// Runs a test on the shared testbed.
fn check<F: Future<Output = ()>>(test: impl FnOnce(&'static Testbed, Vec<String>) -> F) {
    if skipped() {
        return;
    }
    RUNTIME.block_on(async {
        let testbed = TESTBED.get_or_init(start).await;
        test(testbed, testbed.real_node_names().unwrap()).await;
    });
}

async fn start() -> Testbed {
    let begin = Instant::now();
    let testbed =
        Testbed::builder().real_nodes(Profile::DgxH100, NODES).nodes(Profile::DgxH100, FAKES).start().await.unwrap();
    println!("{NODES} real and {FAKES} fake nodes ready after {:.1} s", begin.elapsed().as_secs_f64());
    testbed
}

#[test]
fn a_real_node_offers_what_a_fake_node_of_its_profile_offers() {
    check(|testbed, names| async move {
        assert_eq!(names.len(), NODES);
        let nodes: Api<Node> = Api::all(testbed.client().clone());
        for (index, name) in names.iter().enumerate() {
            let node = nodes.get(name).await.unwrap();
            let labels = node.metadata.labels.unwrap();
            for (key, value) in Profile::DgxH100.labels(index, name) {
                assert_eq!(labels.get(&key), Some(&value), "{name}: {key}");
            }
            for (resource, quantity) in Profile::DgxH100.allocatable() {
                // The disk is the machine's, and huge pages are not offered.
                if resource == "ephemeral-storage" || resource.starts_with("hugepages") {
                    continue;
                }
                let offered = allocatable(testbed.client(), name, &resource).await;
                let [offered, wanted] = [&offered, &quantity.0].map(|text| bytes(text));
                assert_eq!(offered, wanted, "{name}: {resource}");
            }
            let spec = node.spec.unwrap();
            assert_eq!(spec.taints, None, "{name}");
            let info = node.status.unwrap().node_info.unwrap();
            assert_eq!(info.kubelet_version, "v1.37.2");
            assert!(info.container_runtime_version.contains("2.3.7"), "{}", info.container_runtime_version);
        }
    });
}

/// A quantity as a number, for the suffixes that nodes use.
fn bytes(quantity: &str) -> u64 {
    let digits = quantity.trim_end_matches(char::is_alphabetic);
    let factor = match &quantity[digits.len()..] {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        suffix => panic!("{suffix}"),
    };
    digits.parse::<u64>().unwrap() * factor
}

#[test]
fn gpus_are_assigned_and_a_pod_beyond_them_is_refused_by_the_kubelet() {
    check(|testbed, names| async move {
        let pods = namespace(testbed, "gpus").await;
        let eight = json!({ "nvidia.com/gpu": "8" });
        for (name, node) in [("a", &names[0]), ("b", &names[1])] {
            create(&pods, with_limits(pod(name, node, "env NVIDIA_VISIBLE_DEVICES -- await /tmp/go"), &eight)).await;
        }
        for name in ["a", "b"] {
            await_phase(&pods, name, "Running").await;
        }
        create(&pods, with_limits(pod("late", &names[0], "exit 0"), &json!({ "nvidia.com/gpu": "1" }))).await;
        let refused = await_phase(&pods, "late", "Failed").await.status.unwrap();
        let reason = refused.reason.unwrap();
        assert!(["UnexpectedAdmissionError", "OutOfnvidia.com/gpu"].contains(&reason.as_str()), "{reason}");

        let mut devices = Vec::new();
        for name in ["a", "b"] {
            let release = ["exec", "-n", "gpus", name, "--", "/workload", "write", "/tmp/go", "on"];
            assert!(testbed.kubectl().args(release).status().unwrap().success());
            await_phase(&pods, name, "Succeeded").await;
            let text = log(&pods, name).await;
            let list = text.lines().find_map(|line| line.strip_prefix("NVIDIA_VISIBLE_DEVICES=")).unwrap();
            devices.extend(list.split(',').map(str::to_owned));
        }
        devices.sort();
        devices.dedup();
        assert_eq!(devices.len(), 16, "8 devices each, none twice: {devices:?}");
    });
}

#[test]
fn a_gang_on_four_nodes_meets_at_a_name_of_its_headless_service() {
    check(|testbed, names| async move {
        let pods = namespace(testbed, "gang").await;
        let service: Service = serde_json::from_value(json!({
            "metadata": { "name": "train" },
            "spec": { "clusterIP": "None", "publishNotReadyAddresses": true, "selector": { "gang": "train" } },
        }))
        .unwrap();
        let services: Api<Service> = Api::namespaced(testbed.client().clone(), "gang");
        services.create(&PostParams::default(), &service).await.unwrap();
        let begin = Instant::now();
        for (rank, node) in names.iter().enumerate() {
            let mut member = pod(&format!("train-{rank}"), node, "rank");
            member["metadata"]["labels"]["gang"] = json!("train");
            member["spec"]["hostname"] = json!(format!("train-{rank}"));
            member["spec"]["subdomain"] = json!("train");
            member["spec"]["containers"][0]["env"] = json!([
                { "name": "NNODES", "value": names.len().to_string() },
                { "name": "NODE_RANK", "value": rank.to_string() },
                { "name": "MASTER_ADDR", "value": "train-0.train" },
                { "name": "MASTER_PORT", "value": "29500" },
            ]);
            create(&pods, member).await;
        }
        for rank in 0..names.len() {
            let name = format!("train-{rank}");
            await_phase(&pods, &name, "Succeeded").await;
            assert_eq!(log(&pods, &name).await, format!("rank {rank} of {} met at train-0.train:29500\n", names.len()));
        }
        println!("a gang of {} met and ended within {:.1} s", names.len(), begin.elapsed().as_secs_f64());
    });
}

#[test]
fn exit_codes_and_termination_messages_come_back() {
    check(|testbed, names| async move {
        let pods = namespace(testbed, "exits").await;
        create(&pods, pod("seven", &names[2], "term out of luck -- exit 7")).await;
        create(&pods, pod("zero", &names[2], "exit 0")).await;
        create(&pods, with_limits(pod("greedy", &names[3], "oom 400"), &json!({ "memory": "100Mi" }))).await;

        let seven = ending(&await_phase(&pods, "seven", "Failed").await);
        assert_eq!((seven.exit_code, seven.message.as_deref()), (7, Some("out of luck")));
        assert_eq!(ending(&await_phase(&pods, "zero", "Succeeded").await).exit_code, 0);
        let greedy = ending(&await_phase(&pods, "greedy", "Failed").await);
        assert_eq!((greedy.exit_code, greedy.reason.as_deref()), (137, Some("OOMKilled")));
    });
}

#[test]
fn a_deleted_pod_gets_sigterm_and_sigkill_after_its_grace() {
    check(|testbed, names| async move {
        let pods = namespace(testbed, "grace").await;
        for (name, command) in [("quick", "sleep 600"), ("deaf", "ignore-term 600")] {
            create(&pods, pod(name, &names[2], command)).await;
        }
        for name in ["quick", "deaf"] {
            await_phase(&pods, name, "Running").await;
        }
        let gone = async |name: &str| {
            let begin = Instant::now();
            pods.delete(name, &kube::api::DeleteParams::default()).await.unwrap();
            eventually(&format!("pod {name} is gone"), async || {
                pods.get_opt(name).await.unwrap().is_none().then_some(())
            })
            .await;
            begin.elapsed()
        };
        let (quick, deaf) = tokio::join!(gone("quick"), gone("deaf"));
        // Grace is 5 s; only the deaf one uses it up.
        assert!(deaf >= Duration::from_secs(5), "{deaf:?}");
        assert!(quick < deaf, "{quick:?}, {deaf:?}");
    });
}

#[test]
fn logs_follow_and_commands_run_in_containers_through_the_api_server() {
    check(|testbed, names| async move {
        let pods = namespace(testbed, "exec").await;
        create(&pods, pod("target", &names[1], "write /tmp/note hello -- sleep 600")).await;
        await_phase(&pods, "target", "Running").await;
        let kubectl = |args: &str| {
            let output = testbed.kubectl().args(args.split_whitespace()).output().unwrap();
            (output.status.code(), String::from_utf8(output.stdout).unwrap())
        };
        eventually("the log", async || (log(&pods, "target").await == "wrote /tmp/note\n").then_some(())).await;
        let (code, said) = kubectl("exec -n exec target -- /workload read /tmp/note");
        assert_eq!((code, said.as_str()), (Some(0), "read /tmp/note: hello\n"));
        let (code, _) = kubectl("exec -n exec target -- /workload exit 9");
        assert_eq!(code, Some(9));
        let (_, said) = kubectl("logs -n exec target --tail=1");
        assert_eq!(said, "wrote /tmp/note\n");
    });
}

#[test]
fn pods_on_different_nodes_share_a_claim() {
    check(|testbed, names| async move {
        let pods = namespace(testbed, "storage").await;
        testbed.shared_claim("storage", "data").await.unwrap();
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(testbed.client().clone(), "storage");
        let claim = claims.get("data").await.unwrap();
        assert_eq!(claim.spec.unwrap().access_modes.unwrap()[0], "ReadWriteMany");
        let mounted = |name: &str, node: &str, command: &str| {
            let mut pod = pod(name, node, command);
            pod["spec"]["volumes"] = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }]);
            pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "data", "mountPath": "/mnt" }]);
            pod
        };
        create(&pods, mounted("writer", &names[0], "write /mnt/deep/model weights")).await;
        await_phase(&pods, "writer", "Succeeded").await;
        create(&pods, mounted("reader", &names[3], "read /mnt/deep/model")).await;
        await_phase(&pods, "reader", "Succeeded").await;
        assert_eq!(log(&pods, "reader").await, "read /mnt/deep/model: weights\n");
    });
}

#[test]
fn a_fake_node_beside_real_ones_plays_its_pods_with_the_same_claim() {
    check(|testbed, names| async move {
        let fake = Profile::DgxH100.node_name(NODES);
        assert!(!names.contains(&fake));
        let pods = namespace(testbed, "mixed").await;
        testbed.shared_claim("mixed", "data").await.unwrap();
        for node in [&fake, &names[0]] {
            let mut pod = pod(&format!("on-{node}"), node, "exit 0");
            pod["spec"]["volumes"] = json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }]);
            pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "data", "mountPath": "/mnt" }]);
            create(&pods, pod).await;
        }
        for node in [&fake, &names[0]] {
            let ended = await_phase(&pods, &format!("on-{node}"), "Succeeded").await;
            assert_eq!(ending(&ended).exit_code, 0, "{node}");
        }
    });
}

#[test]
fn pods_reach_services_and_the_api_server_by_name() {
    check(|testbed, names| async move {
        let pods = namespace(testbed, "services").await;
        // A one-member gang listens for nobody; rank 0 of 2 stays and listens.
        let mut server = pod("server", &names[0], "rank");
        server["metadata"]["labels"]["app"] = json!("server");
        server["spec"]["containers"][0]["env"] = json!([
            { "name": "NNODES", "value": "2" },
            { "name": "NODE_RANK", "value": "0" },
            { "name": "MASTER_ADDR", "value": "server" },
            { "name": "MASTER_PORT", "value": "8080" },
        ]);
        create(&pods, server).await;
        let service: Service = serde_json::from_value(json!({
            "metadata": { "name": "server" },
            "spec": { "selector": { "app": "server" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
        }))
        .unwrap();
        let services: Api<Service> = Api::namespaced(testbed.client().clone(), "services");
        services.create(&PostParams::default(), &service).await.unwrap();
        // This process serves too, as a webhook of a test would.
        let own = std::net::TcpListener::bind((testbed.host_address().unwrap(), 0)).unwrap();
        let targets = [
            "server:80".to_owned(),
            "server.services.svc.cluster.local:80".to_owned(),
            "kubernetes.default.svc:443".to_owned(),
            own.local_addr().unwrap().to_string(),
        ];
        let command = targets.map(|target| format!("connect {target}")).join(" -- ");
        // From another node, and from the same node.
        create(&pods, pod("far", &names[1], &command)).await;
        create(&pods, pod("near", &names[0], &command)).await;
        for name in ["far", "near"] {
            await_phase(&pods, name, "Succeeded").await;
        }
    });
}

#[test]
fn another_binary_becomes_an_image_and_runs() {
    check(|testbed, names| async move {
        let pods = namespace(testbed, "images").await;
        let archive = testbed.dir().join("tool.tar");
        let binary = WORKLOAD.binary("workload").unwrap();
        pack_image(&binary, "docker.io/flowforge/tool:1", &archive).unwrap();
        assert!(pack_image(&binary, "tool", &archive).is_err(), "a short name is refused");
        testbed.import_images(&names[2], &archive).await.unwrap();
        let with_image = |name: &str, node: &str| {
            let mut pod = pod(name, node, "exit 3");
            pod["spec"]["containers"][0]["image"] = json!("docker.io/flowforge/tool:1");
            pod
        };
        create(&pods, with_image("here", &names[2])).await;
        assert_eq!(ending(&await_phase(&pods, "here", "Failed").await).exit_code, 3);
        // The image is on that node only.
        create(&pods, with_image("elsewhere", &names[3])).await;
        eventually("the image is missed", async || {
            let status = pods.get("elsewhere").await.unwrap().status?;
            let reason = status.container_statuses?.first()?.state.clone()?.waiting?.reason?;
            (reason == "ErrImageNeverPull").then_some(())
        })
        .await;
        assert!(testbed.import_images("no-such-node", &archive).await.is_err());
    });
}

#[test]
fn a_static_pod_runs_and_is_mirrored() {
    check(|testbed, names| async move {
        let pods = namespace(testbed, "static").await;
        let mut manifest = pod("own", &names[3], "sleep 600");
        manifest["metadata"]["namespace"] = json!("static");
        let file = testbed.static_pods(&names[3]).unwrap().join("own.json");
        std::fs::write(&file, manifest.to_string()).unwrap();
        let name = format!("own-{}", names[3]);
        eventually("the mirror pod runs", async || {
            let status = pods.get_opt(&name).await.unwrap()?.status?;
            (status.phase? == "Running").then_some(())
        })
        .await;
        std::fs::remove_file(&file).unwrap();
        eventually("the mirror pod is gone", async || pods.get_opt(&name).await.unwrap().is_none().then_some(())).await;
    });
}
