//! Storage: classes, drivers, volumes and claims in every state, and pods that mount them; disks that pods name themselves.
//!
//! Left out is what makes kube-scheduler choose at random (volumes of one size, several capacities of a class for one node,
//! two volumes kept for one claim, two drivers that must be on the node), and what makes it fail the whole cycle
//! (SchedulerError): disks that cannot be translated, ephemeral claims of placed pods that are somebody else's.

use crate::random::Random;
use serde_json::{Map, Value, json};

const ZONES: [&str; 3] = ["zone-a", "zone-b", "zone-c"];
const ZONE: &str = "topology.kubernetes.io/zone";
const SIZES: [&str; 10] = ["1Gi", "1.5Gi", "2Gi", "3G", "5Gi", "8e9", "10Gi", "0.5Gi", "500M", "20Gi"];
const REQUESTS: [&str; 7] = ["1Gi", "500M", "1", "1500m", "3e9", "0.5Gi", "6Gi"];
const MODES: [&str; 3] = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"];
/// Name, provisioner, and whether it waits for the first consumer.
const CLASSES: [(&str, &str, bool); 6] = [
    ("fast", "csi.fast", true),
    ("slow", "csi.slow", true),
    ("local", "kubernetes.io/no-provisioner", true),
    ("ebs", "kubernetes.io/aws-ebs", true),
    ("files", "kubernetes.io/azure-file", true),
    ("now", "csi.fast", false),
];
const DRIVERS: [&str; 4] = ["csi.fast", "csi.slow", "ebs.csi.aws.com", "pd.csi.storage.gke.io"];
const MIGRATED: [&str; 3] = ["kubernetes.io/aws-ebs", "kubernetes.io/gce-pd", "kubernetes.io/cinder"];

/// Adds storage to a case; about half of the cases have any.
pub(super) fn storage(random: &Random, nodes: &[String], case: &mut Value) {
    let mut sizes = random.fork("sizes");
    if !sizes.percent(50) {
        return;
    }
    if sizes.percent(25) {
        take_any_node(case);
    }
    let namespace = case["pod"]["metadata"]["namespace"].clone();
    let mut volumes: Vec<Value> =
        (0..2 + sizes.below(9)).map(|i| volume(&random.fork(&format!("volume {i}")), i, nodes)).collect();
    let mut claims = Vec::new();
    for i in 0..4 {
        let name = format!("claim-{i}");
        claims.push(claim(&mut random.fork(&name), &name, &namespace, nodes, &mut volumes));
    }
    mount(&mut random.fork("incoming"), case, &mut claims, nodes, &mut volumes);
    place(&mut random.fork("placed"), case, &mut claims, nodes, &mut volumes);
    case["storageClasses"] = classes(&mut random.fork("classes"));
    case["csiDrivers"] = drivers(&mut random.fork("drivers"));
    case["csiNodes"] = csi_nodes(&mut random.fork("csi nodes"), nodes);
    case["csiStorageCapacities"] = capacities(&mut random.fork("capacities"));
    case["volumeAttachments"] = attachments(&mut random.fork("attachments"), nodes, volumes.len());
    case["persistentVolumes"] = json!(volumes);
    case["persistentVolumeClaims"] = json!(claims);
}

/// The pod asks for little but its volumes, so that there is a choice left to score.
fn take_any_node(case: &mut Value) {
    let spec = &mut case["pod"]["spec"];
    if let Some(spec) = spec.as_object_mut() {
        spec.retain(|wish, _| !["affinity", "topologySpreadConstraints", "nodeSelector"].contains(&wish.as_str()));
    }
    spec["tolerations"] = json!([{"operator": "Exists"}]);
}

fn classes(random: &mut Random) -> Value {
    let mut all = Vec::new();
    for (name, provisioner, waits) in CLASSES {
        let topologies = topologies(random);
        if random.percent(93) {
            let mode = if waits { "WaitForFirstConsumer" } else { "Immediate" };
            all.push(json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode,
                "allowedTopologies": topologies}));
        }
    }
    json!(all)
}

fn topologies(random: &mut Random) -> Vec<Value> {
    if !random.percent(30) {
        return Vec::new();
    }
    let term = |random: &mut Random| {
        let zones = random.some(&ZONES, 60);
        let mut all = Vec::new();
        if !zones.is_empty() {
            all.push(json!({"key": ZONE, "values": zones}));
        }
        if random.percent(15) {
            all.push(json!({"key": "pool", "values": ["train", "serve"]}));
        }
        json!({"matchLabelExpressions": all})
    };
    (0..1 + random.below(2)).map(|_| term(random)).collect()
}

fn drivers(random: &mut Random) -> Value {
    let needed = random.percent(40).then(|| *random.pick(&DRIVERS));
    let mut all = Vec::new();
    for name in DRIVERS {
        let spec =
            json!({"storageCapacity": random.percent(65), "preventPodSchedulingIfMissing": needed == Some(name)});
        if random.percent(90) {
            all.push(json!({"metadata": {"name": name}, "spec": spec}));
        }
    }
    json!(all)
}

fn csi_nodes(random: &mut Random, nodes: &[String]) -> Value {
    let mut all = Vec::new();
    for name in nodes {
        let mut drivers = Vec::new();
        for driver in random.some(&DRIVERS, 75) {
            let mut one = json!({"name": driver, "nodeID": name});
            if random.percent(70) {
                let count = *random.pick(&[0, 1, 1, 2, 3, 8]);
                one["allocatable"] = json!({"count": count});
            }
            drivers.push(one);
        }
        let migrated = random.some(&MIGRATED, 60).into_iter().copied().collect::<Vec<_>>().join(",");
        let annotations = if random.percent(80) {
            json!({"storage.alpha.kubernetes.io/migrated-plugins": migrated})
        } else {
            json!({})
        };
        if random.percent(85) {
            all.push(json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"drivers": drivers}}));
        }
    }
    json!(all)
}

/// At most one for a class and node.
fn capacities(random: &mut Random) -> Value {
    let mut all = Vec::new();
    for class in ["fast", "slow", "ebs"] {
        let topologies = match random.below(5) {
            0 => vec![json!({})],
            1 => vec![Value::Null],
            2 => vec![json!({"matchExpressions": [{"key": ZONE, "operator": "NotIn", "values": ["zone-a"]}]})],
            _ => random.some(&ZONES, 90).into_iter().map(|zone| json!({"matchLabels": {ZONE: zone}})).collect(),
        };
        for (i, topology) in topologies.into_iter().enumerate() {
            let mut one = json!({"metadata": {"name": format!("{class}-{i}"), "namespace": "kube-system"},
                "storageClassName": class, "capacity": random.pick(&SIZES)});
            if !topology.is_null() {
                one["nodeTopology"] = topology;
            }
            if random.percent(25) {
                one["maximumVolumeSize"] = json!(random.pick(&SIZES));
            }
            all.push(one);
        }
    }
    json!(all)
}

fn attachments(random: &mut Random, nodes: &[String], volumes: usize) -> Value {
    let mut all = Vec::new();
    for node in nodes {
        for i in 0..random.below(3) {
            let source = json!({"persistentVolumeName": format!("pv-{}", random.below(volumes + 1))});
            let attacher = random.pick(&["csi.fast", "csi.fast", "csi.slow", ""]);
            all.push(json!({"metadata": {"name": format!("{node}-{i}")},
                "spec": {"attacher": attacher, "nodeName": node, "source": source}}));
        }
    }
    json!(all)
}

/// A volume; no two have one size.
fn volume(random: &Random, at: usize, nodes: &[String]) -> Value {
    let mut facts = random.fork("facts");
    let size = SIZES[(at * 3 + 1) % SIZES.len()];
    let mut spec = Map::new();
    spec.insert("capacity".to_owned(), json!({"storage": size}));
    spec.insert("accessModes".to_owned(), json!(modes(&mut facts, 75)));
    spec.insert("storageClassName".to_owned(), json!(facts.pick(&["fast", "local", "local", "slow", ""])));
    if facts.percent(15) {
        spec.insert("volumeMode".to_owned(), json!(facts.pick(&["Block", "Filesystem"])));
    }
    if facts.percent(4) {
        spec.insert("volumeAttributesClassName".to_owned(), json!("gold"));
    }
    if facts.percent(55) {
        spec.insert("nodeAffinity".to_owned(), json!({"required": {"nodeSelectorTerms": terms(&mut facts, nodes)}}));
    }
    let (kind, source) = source(&mut facts, at);
    let mut meta = json!({"name": format!("pv-{at}"), "uid": format!("uid-pv-{at}"),
        "labels": labels(&mut random.fork("labels"), kind != "gcePersistentDisk")});
    spec.insert(kind.to_owned(), source);
    if facts.percent(4) {
        meta["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
    }
    let phase = facts.pick(&["Available", "Available", "Available", "Released", "Pending"]);
    json!({"metadata": meta, "spec": spec, "status": {"phase": phase}})
}

fn modes(random: &mut Random, percent: usize) -> Vec<&'static str> {
    let mut all: Vec<&str> = random.some(&MODES, percent).into_iter().copied().collect();
    if all.is_empty() {
        all.push("ReadWriteOnce");
    }
    all
}

fn source(random: &mut Random, at: usize) -> (&'static str, Value) {
    let id = random.below(4);
    match random.below(9) {
        0..=3 => {
            let driver = random.pick(&["csi.fast", "csi.fast", "csi.slow", "ebs.csi.aws.com"]);
            ("csi", json!({"driver": driver, "volumeHandle": format!("vol-{id}")}))
        }
        4 => ("gcePersistentDisk", json!({"pdName": format!("disk-{id}")})),
        5 => ("awsElasticBlockStore", json!({"volumeID": random.pick(&["vol-0", "vol-1", "aws://zone-a/vol-2"])})),
        6 => ("cinder", json!({"volumeID": format!("cinder-{id}")})),
        7 => ("azureDisk", json!({"diskName": "d", "diskURI": format!("/disks/{id}")})),
        _ => ("local", json!({"path": format!("/mnt/{at}")})),
    }
}

fn labels(random: &mut Random, several: bool) -> Value {
    let mut all = Map::new();
    for key in [ZONE, "failure-domain.beta.kubernetes.io/zone"] {
        if random.percent(15) {
            let mut zones = random.some(&ZONES, 50);
            if zones.is_empty() || !several {
                zones.truncate(0);
                zones.push(&ZONES[0]);
            }
            let named = zones.into_iter().copied().collect::<Vec<_>>().join("__");
            all.insert(key.to_owned(), json!(named));
        }
    }
    if random.percent(5) {
        all.insert("topology.kubernetes.io/region".to_owned(), json!(random.pick(&["r1", "r1__r2"])));
    }
    if random.percent(50) {
        all.insert("tier".to_owned(), json!(random.pick(&["gold", "iron"])));
    }
    Value::Object(all)
}

fn terms(random: &mut Random, nodes: &[String]) -> Vec<Value> {
    let term = |random: &mut Random| {
        let node = if nodes.is_empty() { "none".to_owned() } else { random.pick(nodes).clone() };
        match random.below(10) {
            0..=2 => {
                json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]})
            }
            3..=5 => {
                let zones: Vec<&str> = vec![*random.pick(&ZONES), *random.pick(&ZONES)];
                json!({"matchExpressions": [{"key": ZONE, "operator": "In", "values": zones}]})
            }
            6 => {
                json!({"matchExpressions": [{"key": "failure-domain.beta.kubernetes.io/zone", "operator": "In", "values": ["zone-a"]},
                {"key": "failure-domain.beta.kubernetes.io/region", "operator": "Exists"}]})
            }
            7 => {
                json!({"matchExpressions": [{"key": "size", "operator": random.pick(&["Gt", "Lt"]), "values": [random.pick(&["8", "x"])]}]})
            }
            8 => {
                json!({"matchFields": [{"key": "metadata.name", "operator": random.pick(&["In", "NotIn"]), "values": [node]}]})
            }
            _ => json!({"matchExpressions": [{"key": "pool", "operator": "NotIn", "values": ["serve"]},
                {"key": ZONE, "operator": "Exists"}]}),
        }
    };
    (0..1 + random.below(2)).map(|_| term(random)).collect()
}

/// A claim, and what the volumes know of it.
fn claim(random: &mut Random, name: &str, namespace: &Value, nodes: &[String], volumes: &mut [Value]) -> Value {
    let mut meta = json!({"name": name, "namespace": namespace, "uid": format!("uid-{name}"), "annotations": {}});
    let class = *random.pick(&["fast", "fast", "local", "local", "slow", "slow", "ebs", "files"]);
    let mut spec = json!({"accessModes": modes(random, 35), "storageClassName": class});
    if random.percent(20) {
        spec["accessModes"] = json!(["ReadWriteOncePod"]);
    }
    if random.percent(95) {
        spec["resources"] = json!({"requests": {"storage": random.pick(&REQUESTS)}});
    }
    if random.percent(7) {
        spec["volumeMode"] = json!(random.pick(&["Block", "Filesystem"]));
    }
    if random.percent(3) {
        spec["volumeAttributesClassName"] = json!("gold");
    }
    if random.percent(10) {
        spec["selector"] = json!({"matchLabels": {"tier": random.pick(&["gold", "iron"])}});
    }
    if random.percent(5) {
        meta["annotations"]["volume.beta.kubernetes.io/storage-class"] = json!(class);
    }
    let mut phase = "Pending";
    match random.below(100) {
        0..=34 if bind(random, &meta, &mut spec, volumes) => {
            phase = "Bound";
            meta["annotations"]["pv.kubernetes.io/bind-completed"] = json!("yes");
        }
        35..=36 => spec["storageClassName"] = json!("now"),
        37 => spec["storageClassName"] = json!(random.pick(&["", "absent"])),
        38 => spec["volumeName"] = json!("pv-0"),
        39 => {
            phase = "Lost";
            spec["volumeName"] = json!("pv-gone");
        }
        other => waits(random, other, &mut meta, nodes, volumes),
    }
    if random.percent(2) {
        meta["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
    }
    json!({"metadata": meta, "spec": spec, "status": {"phase": phase}})
}

/// Binds a claim to a volume that no other has, or now and then to none that exists. False: every volume has a claim.
fn bind(random: &mut Random, meta: &Value, spec: &mut Value, volumes: &mut [Value]) -> bool {
    if random.percent(4) {
        spec["volumeName"] = json!("pv-gone");
        return true;
    }
    let free: Vec<usize> = (0..volumes.len()).filter(|at| volumes[*at]["spec"]["claimRef"].is_null()).collect();
    if free.is_empty() {
        return false;
    }
    let volume = &mut volumes[*random.pick(&free)];
    spec["volumeName"] = volume["metadata"]["name"].clone();
    volume["status"]["phase"] = json!("Bound");
    volume["spec"]["claimRef"] = reference(meta, meta["uid"].clone());
    true
}

/// A claim that waits for its first consumer: a node may be selected, a volume kept for it.
fn waits(random: &mut Random, dice: usize, meta: &mut Value, nodes: &[String], volumes: &mut [Value]) {
    if dice < 48 {
        let node =
            if nodes.is_empty() || random.percent(15) { "no-such-node".to_owned() } else { random.pick(nodes).clone() };
        meta["annotations"]["volume.kubernetes.io/selected-node"] = json!(node);
    }
    if dice > 85 {
        let free: Vec<usize> = (0..volumes.len()).filter(|at| volumes[*at]["spec"]["claimRef"].is_null()).collect();
        if free.is_empty() {
            return;
        }
        let uid = match random.below(10) {
            0..=3 => Value::Null,
            4 => json!("uid-other"),
            _ => meta["uid"].clone(),
        };
        volumes[*random.pick(&free)]["spec"]["claimRef"] = reference(meta, uid);
    }
}

fn reference(meta: &Value, uid: Value) -> Value {
    let mut reference = json!({"kind": "PersistentVolumeClaim", "namespace": meta["namespace"], "name": meta["name"]});
    if !uid.is_null() {
        reference["uid"] = uid;
    }
    reference
}

/// Gives the pod that asks its volumes.
fn mount(random: &mut Random, case: &mut Value, claims: &mut Vec<Value>, nodes: &[String], volumes: &mut [Value]) {
    let mut mounted = Vec::new();
    let mut order = [0, 1, 2, 3];
    let first = random.below(4);
    order.rotate_left(first);
    for i in 0..random.below(4) {
        let name = format!("v{i}");
        match random.below(20) {
            0..=10 => {
                let at = if random.percent(3) { order[0] } else { order[i] };
                let named = if random.percent(1) { "no-such-claim".to_owned() } else { format!("claim-{at}") };
                mounted.push(json!({"name": name, "persistentVolumeClaim": {"claimName": named}}));
            }
            11..=13 => {
                mounted.push(json!({"name": name, "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}));
                if random.percent(95) {
                    let pod = case["pod"]["metadata"].clone();
                    let mut made = claim(random, &format!("incoming-{name}"), &pod["namespace"], nodes, volumes);
                    if random.percent(95) {
                        made["metadata"]["ownerReferences"] = owner(&pod);
                    }
                    claims.push(made);
                }
            }
            14 => mounted.push(json!({"name": name, "emptyDir": {}})),
            _ => mounted.push(disk(random, &name)),
        }
    }
    if !mounted.is_empty() {
        case["pod"]["spec"]["volumes"] = json!(mounted);
    }
}

fn owner(pod: &Value) -> Value {
    json!([{"apiVersion": "v1", "kind": "Pod", "name": pod["name"], "uid": pod["uid"], "controller": true}])
}

/// Gives pods on nodes theirs.
fn place(random: &mut Random, case: &mut Value, claims: &mut Vec<Value>, nodes: &[String], volumes: &mut [Value]) {
    for pod in case["pods"].as_array_mut().into_iter().flatten() {
        let mut mounted = Vec::new();
        for i in 0..random.below(6).saturating_sub(2) {
            let name = format!("v{i}");
            match random.below(10) {
                0..=3 => {
                    let named = format!("claim-{}", random.below(10));
                    mounted.push(json!({"name": name, "persistentVolumeClaim": {"claimName": named}}));
                }
                4 => {
                    mounted.push(json!({"name": name, "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}));
                    let named = format!("{}-{name}", pod["metadata"]["name"].as_str().unwrap_or_default());
                    let mut made = claim(random, &named, &pod["metadata"]["namespace"], nodes, volumes);
                    made["metadata"]["ownerReferences"] = owner(&pod["metadata"]);
                    claims.push(made);
                }
                _ => mounted.push(disk(random, &name)),
            }
        }
        if !mounted.is_empty() {
            pod["spec"]["volumes"] = json!(mounted);
        }
    }
}

/// A disk that a pod names itself.
fn disk(random: &mut Random, name: &str) -> Value {
    let (read_only, id) = (random.percent(40), random.below(4));
    let (kind, source) = match random.below(7) {
        0 | 1 => ("gcePersistentDisk", json!({"pdName": format!("disk-{id}"), "readOnly": read_only})),
        2 | 3 => ("awsElasticBlockStore", json!({"volumeID": format!("vol-{id}"), "readOnly": read_only})),
        4 => ("iscsi", json!({"targetPortal": "t", "iqn": format!("iqn-{id}"), "lun": 0, "readOnly": read_only})),
        5 => {
            let monitors = [json!(["a"]), json!(["a", "b"]), json!(["b", "c"])];
            let image = format!("image-{}", id % 2);
            ("rbd", json!({"monitors": random.pick(&monitors), "pool": "rbd", "image": image, "readOnly": read_only}))
        }
        _ => ("cinder", json!({"volumeID": format!("cinder-{id}")})),
    };
    json!({"name": name, kind: source})
}
