//! `flowforge topology`: the cluster's domains with their free and used GPUs, or the network of a description.

use std::collections::BTreeMap;
use std::path::Path;

use flowforge_api::ClusterTopology;
use flowforge_api::topology::DEFAULT;
use flowforge_topology_core::fabric::{Fabric, clos, ibnetdiscover, model, netq};
use flowforge_topology_core::{Levels, standard};
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Api;
use kube::ResourceExt as _;
use kube::api::ListParams;
use smol_str::SmolStr;

use crate::args::{Format, Picture, TopologyArgs};
use crate::cluster::{Cluster, Target, list_all};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::render::topology::{Drawing, Host, draw, is_host, lines, svg};
use crate::snapshot::levels_of;

/// Resources that count GPUs, unless one is named.
const GPUS: [&str; 3] = ["nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915"];
/// What `--level` calls the nodes themselves.
const NODES: &str = "nodes";
/// More nodes are drawn as domains alone, unless a level is named or a program reads.
const MANY: usize = 200;

pub(crate) async fn run(args: &TopologyArgs, target: &Target, out: &mut Output) -> Result<Exit, Failure> {
    let (levels, hosts) = match &args.file {
        Some(path) => described(path)?,
        None => live(args, &target.connect().await?).await?,
    };
    let last = match &args.level {
        Some(name) if name == NODES => None,
        Some(name) => Some(levels.find(name).ok_or_else(|| {
            let known = levels.names().collect::<Vec<_>>().join(", ");
            Failure::new(format!("--level {name}: there is no such level"))
                .fix(format!("the levels are {known}; {NODES} draws each node"))
        })?),
        None if args.output == Picture::Tree && hosts.len() > MANY => {
            let domains = levels.iter().rev().find(|level| !is_host(&levels, *level));
            if let Some(level) = domains {
                eprintln!(
                    "{} nodes: drawn down to level {}; --level {NODES} draws each",
                    hosts.len(),
                    levels.name(level)
                );
            }
            domains
        }
        None => None,
    };
    let drawing = draw(levels, &hosts, last);
    print(&drawing, args.output, out)?;
    Ok(Exit::Success)
}

fn print(drawing: &Drawing, form: Picture, out: &mut Output) -> Result<(), Failure> {
    match form {
        Picture::Svg => out.text(&svg::picture(drawing)),
        Picture::Json => out.data(Format::Json, drawing).map(drop),
        Picture::Yaml => out.data(Format::Yaml, drawing).map(drop),
        Picture::Tree => {
            let columns = if out.is_terminal() { out.size().0 } else { usize::MAX };
            lines(drawing, columns, out.style()).iter().try_for_each(|line| out.line(line))
        }
    }
}

/// The levels and nodes of the cluster.
async fn live(args: &TopologyArgs, cluster: &Cluster) -> Result<(Levels, Vec<Host>), Failure> {
    let levels = levels(cluster).await?;
    let resources: Vec<&str> = args.resource.as_deref().map_or(GPUS.to_vec(), |resource| vec![resource]);
    let mut used: BTreeMap<String, i64> = BTreeMap::new();
    for pod in list_all(&Api::<Pod>::all(cluster.client.clone()), ListParams::default(), "pods").await? {
        let ended =
            pod.status.as_ref().and_then(|s| s.phase.as_deref()).is_some_and(|p| p == "Succeeded" || p == "Failed");
        if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|_| !ended) {
            *used.entry(node).or_default() += requested(&pod, &resources);
        }
    }
    let host = |node: Node| {
        let name = node.name_any();
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        Host {
            gpus: sum(allocatable, &resources),
            used: used.get(&name).copied().unwrap_or(0),
            closed: closed(&node),
            labels: node.labels().clone(),
            path: None,
            name,
        }
    };
    let nodes = list_all(&Api::<Node>::all(cluster.client.clone()), ListParams::default(), "nodes").await?;
    Ok((levels, nodes.into_iter().map(host).collect()))
}

/// The levels in force, as far as they can be known from here: those of the object, or the standard ones.
async fn levels(cluster: &Cluster) -> Result<Levels, Failure> {
    let api: Api<ClusterTopology> = Api::all(cluster.client.clone());
    let found = match api.get_opt(DEFAULT).await {
        Ok(found) => found,
        // An older installation, or none: the nodes have their labels all the same.
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        Err(error) => return Err(Failure::of_request(&format!("read ClusterTopology {DEFAULT}"), &error)),
    };
    let Some(object) = found else {
        return Levels::new(standard()).map_err(|why| Failure::new(why.to_string()));
    };
    levels_of(&object.spec).map_err(|why| {
        Failure::new(format!("ClusterTopology {DEFAULT} cannot be used: {why}")).fix(format!(
            "kubectl edit clustertopology {DEFAULT}; the scheduler meanwhile uses the last levels that could be"
        ))
    })
}

/// What a pod holds: its containers together, or its largest init container beside the sidecars started before it.
fn requested(pod: &Pod, resources: &[&str]) -> i64 {
    let Some(spec) = &pod.spec else { return 0 };
    let of = |container: &Container| {
        sum(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()), resources)
    };
    let (mut sidecars, mut peak) = (0, 0);
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars += of(container);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + of(container));
        }
    }
    (spec.containers.iter().map(of).sum::<i64>() + sidecars).max(peak)
}

/// Devices are whole; an amount that is not written as a whole number counts as none.
fn sum(amounts: Option<&BTreeMap<String, Quantity>>, resources: &[&str]) -> i64 {
    let amount = |resource: &&str| amounts?.get(*resource)?.0.parse::<i64>().ok();
    resources.iter().filter_map(amount).sum()
}

fn closed(node: &Node) -> Option<&'static str> {
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        return Some("cordoned");
    }
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    ready.is_some_and(|condition| condition.status != "True").then_some("not ready")
}

/// The levels and hosts of a description of a network, whose form is told by its content.
fn described(path: &Path) -> Result<(Levels, Vec<Host>), Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| Failure::new(format!("cannot read {shown}: {error}")))?;
    let fabric = read(&text).map_err(|why| {
        Failure::new(format!("{shown}: {why}")).fix(
            "known are tables of hosts and switches (CSV), ibnetdiscover's output, topograph's model clusters (YAML), and NetQ's \
             compute nodes and graphs (JSON)",
        )
    })?;
    fabric.left_out.iter().for_each(|what| eprintln!("left out: {what}"));
    let levels = Levels::of_names(fabric.levels).map_err(|why| Failure::new(format!("{shown}: {why}")))?;
    let part = |part: Option<SmolStr>| part.map(|part| part.to_string());
    let host = |(name, path): (SmolStr, Vec<Option<SmolStr>>)| Host {
        name: name.to_string(),
        path: Some(path.into_iter().map(part).collect()),
        ..Host::default()
    };
    Ok((levels, fabric.hosts.into_iter().map(host).collect()))
}

fn read(text: &str) -> Result<Fabric, String> {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
    if first.starts_with('[') || first.starts_with('{') {
        let graph = text.contains("compounded_nodes");
        return if graph {
            serde_json::from_str::<Vec<netq::Graph>>(text).map(|graphs| netq::graph(&graphs)).map_err(|e| e.to_string())
        } else {
            let nodes = serde_json::from_str::<Vec<netq::ComputeNode>>(text);
            nodes.map(|nodes| netq::compute_nodes(&nodes)).map_err(|e| e.to_string())
        };
    }
    if text.lines().any(|line| line.starts_with("Switch\t") || line.starts_with("Switch ")) {
        return ibnetdiscover::read(text).map(|found| found.fabric()).map_err(|why| why.to_string());
    }
    if first.contains(',') {
        return clos::read(text).map_err(|why| why.to_string());
    }
    let model: model::Model = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if model.blocks.is_empty() {
        return Err("blocks is empty or absent".to_owned());
    }
    model::read(&model).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("a pod")
    }

    fn asks(gpus: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"nvidia.com/gpu": gpus, "cpu": "1"}}})
    }

    #[test]
    fn a_pod_holds_its_containers_or_its_largest_init_container() {
        let mut sidecar = asks("1");
        sidecar["restartPolicy"] = json!("Always");
        assert_eq!(requested(&pod(&json!({"containers": [asks("2"), asks("1")]})), &GPUS), 3);
        let with = json!({"initContainers": [sidecar, asks("4")], "containers": [asks("2")]});
        assert_eq!(requested(&pod(&with), &GPUS), 5);
        assert_eq!(requested(&pod(&json!({"containers": [asks("2")]})), &["amd.com/gpu"]), 0);
    }

    #[test]
    fn a_node_is_closed_by_a_cordon_or_when_it_is_not_ready() {
        let node = |spec: &Value, ready: &str| -> Node {
            let conditions = json!([{"type": "Ready", "status": ready}]);
            serde_json::from_value(
                json!({"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": conditions}}),
            )
            .expect("a node")
        };
        assert_eq!(closed(&node(&json!({}), "True")), None);
        assert_eq!(closed(&node(&json!({"unschedulable": true}), "True")), Some("cordoned"));
        assert_eq!(closed(&node(&json!({}), "Unknown")), Some("not ready"));
    }

    #[test]
    fn a_description_is_told_by_its_content() {
        let hosts = |text: &str| read(text).map(|fabric| fabric.hosts.len());
        assert_eq!(hosts("ip,tor\na,1\nb,1\n"), Ok(2));
        assert_eq!(hosts("switches: {}\nblocks: [{switch: l, nodes: ['n[1-3]']}]\n"), Ok(3));
        assert_eq!(hosts(r#"[{"Name": "a", "DomainUUID": "u"}]"#), Ok(1));
        assert_eq!(
            hosts("Switch\t65 \"S-1\"\t# \"MF0;l:x/U1\"\nCa\t1 \"H-1\"\t# \"a mlx5_0\"\n[1](x) \"S-1\"[1] # x\n"),
            Ok(1)
        );
        assert!(hosts("hello: world\n").is_err() && hosts("").is_err());
    }
}
