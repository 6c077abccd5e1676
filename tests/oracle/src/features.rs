//! Which features of devices and volumes a case uses, so that none of them is compared only where it has nothing to say.

use serde_json::Value;

/// A feature, as the counter report has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Feature {
    /// Name.
    pub(crate) name: &'static str,
    /// The plugin that refuses because of it.
    pub(crate) plugin: &'static str,
    /// Whether a case uses it.
    pub(crate) uses: fn(&Value) -> bool,
    /// What is in the reason of a refusal that comes of it; empty where the plugin has one reason for everything.
    pub(crate) reason: &'static str,
}

const fn feature(name: &'static str, plugin: &'static str, uses: fn(&Value) -> bool, reason: &'static str) -> Feature {
    Feature { name, plugin, uses, reason }
}

const fn of_devices(name: &'static str, uses: fn(&Value) -> bool) -> Feature {
    feature(name, "DynamicResources", uses, "")
}

/// All of them.
pub(crate) const FEATURES: [Feature; 19] = [
    of_devices("devices: extended resources", |case| {
        list(&case["deviceClasses"]).any(|class| class["spec"]["extendedResourceName"].is_string())
    }),
    of_devices("devices: selectors", |case| asks(case).any(|ask| is_some(&ask["selectors"]))),
    of_devices("devices: matchAttribute", |case| constraints(case).any(|of| of["matchAttribute"].is_string())),
    of_devices("devices: distinctAttribute", |case| constraints(case).any(|of| of["distinctAttribute"].is_string())),
    of_devices("devices: alternatives", |case| requests(case).any(|request| is_some(&request["firstAvailable"]))),
    of_devices("devices: admin access", |case| asks(case).any(|ask| ask["adminAccess"] == true)),
    of_devices("devices: taints", |case| {
        is_some(&case["deviceTaintRules"]) || devices(case).any(|device| is_some(&device["taints"]))
    }),
    of_devices("devices: shared counters", |case| devices(case).any(|device| is_some(&device["consumesCounters"]))),
    of_devices("devices: consumable capacity", |case| {
        devices(case).any(|device| device["allowMultipleAllocations"] == true)
    }),
    of_devices("devices: binding conditions", |case| {
        let of_device = devices(case).any(|device| is_some(&device["bindingConditions"]));
        of_device || results(case).any(|result| is_some(&result["bindingConditions"]))
    }),
    feature("volumes: bound", "VolumeBinding", |case| mounted(case).any(is_bound), "PersistentVolume's node affinity"),
    feature(
        "volumes: static",
        "VolumeBinding",
        |case| waiting(case).any(|(_, class)| class["provisioner"] == NO_PROVISIONER),
        "find available persistent volumes",
    ),
    feature(
        "volumes: dynamic",
        "VolumeBinding",
        |case| waiting(case).any(|(_, class)| class["provisioner"] != NO_PROVISIONER),
        "find available persistent volumes",
    ),
    feature(
        "volumes: capacity",
        "VolumeBinding",
        |case| waiting(case).any(|(_, class)| has_capacity(case, &class["provisioner"])),
        "enough free storage",
    ),
    feature(
        "volumes: ephemeral",
        "VolumeBinding",
        |case| {
            let volumes = || list(&case["pod"]["spec"]["volumes"]);
            let others_claim = volumes().any(|volume| volume["persistentVolumeClaim"].is_object());
            !others_claim && volumes().any(|volume| volume["ephemeral"].is_object())
        },
        "",
    ),
    feature("volumes: zone", "VolumeZone", |case| mounted(case).any(is_bound), "available volume zone"),
    feature(
        "volumes: limits",
        "NodeVolumeLimits",
        |case| {
            let drivers = list(&case["csiNodes"]).flat_map(|node| list(&node["spec"]["drivers"]));
            drivers.into_iter().any(|driver| driver["allocatable"]["count"].is_number())
        },
        "max volume count",
    ),
    feature(
        "volumes: ReadWriteOncePod",
        "VolumeRestrictions",
        |case| mounted(case).any(|claim| list(&claim["spec"]["accessModes"]).any(|mode| mode == "ReadWriteOncePod")),
        "ReadWriteOncePod",
    ),
    feature(
        "volumes: disks",
        "VolumeRestrictions",
        |case| {
            let volumes = || list(&case["pod"]["spec"]["volumes"]);
            ["gcePersistentDisk", "awsElasticBlockStore", "iscsi", "rbd"]
                .iter()
                .any(|disk| volumes().any(|v| v[*disk].is_object()))
        },
        "no available disk",
    ),
];

/// The provisioner of classes whose volumes are made by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

fn list(of: &Value) -> impl Iterator<Item = &Value> {
    of.as_array().into_iter().flatten()
}

fn is_some(of: &Value) -> bool {
    list(of).next().is_some()
}

/// Claims of the pod; those of others only hold devices.
fn own(case: &Value) -> impl Iterator<Item = &Value> {
    list(&case["resourceClaims"]).filter(|claim| is_some(&claim["spec"]["devices"]["requests"]))
}

fn requests(case: &Value) -> impl Iterator<Item = &Value> {
    own(case).flat_map(|claim| list(&claim["spec"]["devices"]["requests"]))
}

fn asks(case: &Value) -> impl Iterator<Item = &Value> {
    requests(case).flat_map(|request| list(&request["firstAvailable"]).chain([&request["exactly"]]))
}

fn constraints(case: &Value) -> impl Iterator<Item = &Value> {
    own(case).flat_map(|claim| list(&claim["spec"]["devices"]["constraints"]))
}

fn results(case: &Value) -> impl Iterator<Item = &Value> {
    own(case).flat_map(|claim| list(&claim["status"]["allocation"]["devices"]["results"]))
}

fn devices(case: &Value) -> impl Iterator<Item = &Value> {
    list(&case["resourceSlices"]).flat_map(|slice| list(&slice["spec"]["devices"]))
}

/// PersistentVolumeClaims that the pod mounts, those of ephemeral volumes too.
fn mounted(case: &Value) -> impl Iterator<Item = &Value> {
    let pod = &case["pod"];
    let name = |volume: &Value| match volume["persistentVolumeClaim"]["claimName"].as_str() {
        Some(name) => Some(name.to_owned()),
        None if volume["ephemeral"].is_object() => {
            Some(format!("{}-{}", pod["metadata"]["name"].as_str()?, volume["name"].as_str()?))
        }
        None => None,
    };
    let names: Vec<String> = list(&pod["spec"]["volumes"]).filter_map(name).collect();
    let is_named = move |claim: &&Value| names.iter().any(|name| claim["metadata"]["name"] == **name);
    let is_here = |claim: &&Value| claim["metadata"]["namespace"] == pod["metadata"]["namespace"];
    list(&case["persistentVolumeClaims"]).filter(is_here).filter(is_named)
}

fn is_bound(claim: &Value) -> bool {
    claim["spec"]["volumeName"].is_string()
}

/// Claims of the pod that wait for a node, with their classes.
fn waiting(case: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    mounted(case).filter(|claim| !is_bound(claim)).filter_map(|claim| {
        let is_of = |class: &&Value| class["metadata"]["name"] == claim["spec"]["storageClassName"];
        let class = list(&case["storageClasses"]).find(is_of)?;
        (class["volumeBindingMode"] == "WaitForFirstConsumer").then_some((claim, class))
    })
}

/// Whether a driver says how much storage is free.
fn has_capacity(case: &Value, driver: &Value) -> bool {
    list(&case["csiDrivers"]).any(|of| of["metadata"]["name"] == *driver && of["spec"]["storageCapacity"] == true)
}
