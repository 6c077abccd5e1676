//! Real nodes fail as machines do, and leave nothing behind.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails in a test's helper fails the test")]

mod common;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use common::{
    LIMIT, allocatable, await_phase, create, eventually, log, namespace, pod, readiness, skipped, with_limits,
};
use flowforge_testbed::{
    Profile, Testbed,
    real::{RealNodeOptions, TopologyPolicy},
};
use serde_json::json;

/// Who listens on it at 127.77.SLOT.1 has the slot (`tests/testbed/supervise/home.go`).
const GUARD_PORT: u16 = 65000;

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_a_machine_and_a_device_fail_and_recover() {
    if skipped() {
        return;
    }
    let testbed = Testbed::builder()
        .real_nodes(Profile::DgxH100, 2)
        .node_grace(Duration::from_secs(10))
        .controller_manager_flag("--node-monitor-period=1s")
        .start()
        .await
        .unwrap();
    let names = testbed.real_node_names().unwrap();
    let pods = namespace(&testbed, "faults").await;
    let client = testbed.client();
    create(&pods, pod("survivor", &names[0], "sleep 600")).await;
    create(&pods, pod("victim", &names[1], "sleep 600")).await;
    for name in ["survivor", "victim"] {
        await_phase(&pods, name, "Running").await;
    }

    // A kubelet dies: the node is lost, its containers are not.
    testbed.kill_kubelet(&names[0]).unwrap();
    let begin = Instant::now();
    eventually("the node is lost", async || (readiness(client, &names[0]).await.0 == "Unknown").then_some(())).await;
    println!("the death of a kubelet is seen after {:.1} s", begin.elapsed().as_secs_f64());
    testbed.restart_kubelet(&names[0]).unwrap();
    testbed.await_node(&names[0], LIMIT).await.unwrap();
    assert_eq!(restarts(&pods, "survivor").await, 0);
    eventually("GPUs are registered again", async || {
        (allocatable(client, &names[0], "nvidia.com/gpu").await == "8").then_some(())
    })
    .await;

    // A device breaks.
    testbed.break_devices(&names[0], "gpu", &[1, 5]).unwrap();
    eventually("6 GPUs are left", async || {
        (allocatable(client, &names[0], "nvidia.com/gpu").await == "6").then_some(())
    })
    .await;
    create(&pods, with_limits(pod("rest", &names[0], "env NVIDIA_VISIBLE_DEVICES"), &json!({ "nvidia.com/gpu": "6" })))
        .await;
    await_phase(&pods, "rest", "Succeeded").await;
    assert_eq!(log(&pods, "rest").await.split(',').count(), 6);
    testbed.break_devices(&names[0], "gpu", &[]).unwrap();
    eventually("all GPUs are back", async || {
        (allocatable(client, &names[0], "nvidia.com/gpu").await == "8").then_some(())
    })
    .await;

    // A machine loses power: its containers are gone, and it knows when it is back.
    testbed.stop_node(&names[1]).await.unwrap();
    let of_node = |name: &str| {
        let (dir, slot) = (testbed.dir().display(), slot_of(&testbed));
        [processes_of(&format!("{dir}/nodes/{name}/")), processes_of(&format!("/flowforge/{slot}/{name}"))].concat()
    };
    assert_eq!(of_node(&names[1]), Vec::<String>::new());
    eventually("the machine is lost", async || (readiness(client, &names[1]).await.0 == "Unknown").then_some(())).await;
    testbed.start_node(&names[1]).unwrap();
    testbed.await_node(&names[1], LIMIT).await.unwrap();
    await_phase(&pods, "victim", "Failed").await;

    // A machine is killed behind its runner's back.
    assert!(!of_node(&names[1]).is_empty());
    testbed.kill(&names[1]).unwrap();
    eventually("no process is left", async || of_node(&names[1]).is_empty().then_some(())).await;

    // The testbed goes while containers run.
    let (dir, slot) = (testbed.dir().to_owned(), slot_of(&testbed));
    let begin = Instant::now();
    testbed.stop().unwrap();
    println!("gone after {:.1} s", begin.elapsed().as_secs_f64());
    assert!(!dir.exists());
    nothing_is_left(&dir, slot).await;
}

async fn restarts(pods: &kube::Api<k8s_openapi::api::core::v1::Pod>, name: &str) -> i32 {
    let status = pods.get(name).await.unwrap().status.unwrap();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    status.container_statuses.unwrap()[0].restart_count
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_when_the_supervisor_itself_is_killed() {
    if skipped() {
        return;
    }
    let testbed = Testbed::builder().real_nodes(Profile::Cpu, 1).start().await.unwrap();
    let name = testbed.real_node_names().unwrap().remove(0);
    let pods = namespace(&testbed, "orphans").await;
    create(&pods, pod("orphan", &name, "ignore-term 600")).await;
    await_phase(&pods, "orphan", "Running").await;
    let (dir, slot) = (testbed.dir().to_owned(), slot_of(&testbed));
    assert!(!processes_of(dir.to_str().unwrap()).is_empty());

    let supervisor = fs::read_to_string(dir.join("supervisor.lock")).unwrap();
    let killed = Command::new("kill").args(["-KILL", supervisor.trim()]).status().unwrap();
    assert!(killed.success());
    nothing_is_left(&dir, slot).await;
    // The directory itself waits for the next testbed, which sweeps it.
    drop(testbed);
    Testbed::builder().start().await.unwrap().stop().unwrap();
    assert!(!dir.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topology_manager_refuses_what_does_not_fit_one_numa_node() {
    if skipped() {
        return;
    }
    let testbed = Testbed::builder().real_nodes(Profile::DgxH100, 0).start().await.unwrap();
    let options = RealNodeOptions { topology_policy: TopologyPolicy::SingleNumaNode, ..RealNodeOptions::default() };
    let name = testbed.add_real_nodes(Profile::DgxH100, 1, &options).await.unwrap().remove(0);
    let pods = namespace(&testbed, "numa").await;
    let gpus = |pod_name: &str, count: &str, command: &str| {
        with_limits(pod(pod_name, &name, command), &json!({ "nvidia.com/gpu": count }))
    };
    // 3 of each half: 2 are free in all, but on different NUMA nodes.
    for half in ["first", "second"] {
        create(&pods, gpus(half, "3", "sleep 600")).await;
        await_phase(&pods, half, "Running").await;
    }
    create(&pods, gpus("across", "2", "exit 0")).await;
    let refused = await_phase(&pods, "across", "Failed").await.status.unwrap();
    assert_eq!(refused.reason.as_deref(), Some("TopologyAffinityError"));
    create(&pods, gpus("aligned", "1", "exit 0")).await;
    await_phase(&pods, "aligned", "Succeeded").await;
}

/// The testbed's slot is the third byte of its addresses.
fn slot_of(testbed: &Testbed) -> u8 {
    testbed.host_address().unwrap().octets()[2]
}

/// Command lines and cgroups of all processes that mention `pattern`.
fn processes_of(pattern: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok() && *entry.file_name() != *own)
        .filter_map(|entry| {
            let read = |name: &str| {
                String::from_utf8_lossy(&fs::read(entry.path().join(name)).unwrap_or_default()).into_owned()
            };
            let all = format!("{} {}", read("cmdline").replace('\0', " "), read("cgroup"));
            all.contains(pattern).then_some(all)
        })
        .collect()
}

/// Waits until no process, mount, interface or cgroup of a testbed is left whose
/// supervisor is gone, or about to go. What bears the number of its slot counts
/// while we hold the slot ourselves; otherwise it is another testbed's, which
/// has taken the slot since.
async fn nothing_is_left(dir: &Path, slot: u8) {
    let begin = Instant::now();
    let held = take_slot(slot).await;
    loop {
        let mut left = processes_of(dir.to_str().unwrap());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(dir.to_str().unwrap())).map(str::to_owned));
        if held.is_some() {
            left.extend(left_in_slot(slot));
        }
        if left.is_empty() {
            return;
        }
        assert!(begin.elapsed() < LIMIT, "left: {left:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Takes a slot as a supervisor does; nothing if it stays another's.
async fn take_slot(slot: u8) -> Option<TcpListener> {
    let begin = Instant::now();
    loop {
        match TcpListener::bind((Ipv4Addr::new(127, 77, slot, 1), GUARD_PORT)) {
            Ok(listener) => return Some(listener),
            Err(error) if begin.elapsed() > Duration::from_secs(2) => {
                println!("another testbed has taken slot {slot}: {error}");
                return None;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Processes, interfaces and cgroups that bear a slot's number.
fn left_in_slot(slot: u8) -> Vec<String> {
    let mut left = processes_of(&format!("/flowforge/{slot}/"));
    let links = Command::new("ip").args(["-oneline", "link"]).output().unwrap();
    let links = String::from_utf8(links.stdout).unwrap();
    left.extend(links.lines().filter(|line| line.contains(&format!(" flowforge{slot}@"))).map(str::to_owned));
    // With cgroup v2 the root is the only hierarchy, with v1 each controller has one below it.
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).unwrap().flatten().map(|entry| entry.path());
    let groups =
        hierarchies.chain([root.to_owned()]).map(|hierarchy| hierarchy.join("flowforge").join(slot.to_string()));
    left.extend(groups.filter(|group| group.exists()).map(|group| group.display().to_string()));
    left
}
