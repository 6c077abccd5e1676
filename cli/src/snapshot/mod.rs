//! A cluster as the scheduler sees it: read live, written into a file, read from one, and handed to the scheduler's core.
//!
//! ```text
//!   API server ──live──┐                  ┌──file──> `flowforge snapshot > FILE`
//!   FILE ───of_file────┴──> Snapshot ─────┴──engine──> core: facts as the running scheduler has them, nothing decided
//! ```
//! A file is a `List` of objects as `kubectl get -o json` prints them, with the time at which it was taken. What scheduling does
//! not read of pods (commands, environment) is left out: it may be secret. What it does not hold are decisions that the running
//! scheduler has not written yet: places that it has promised to a gang within the last second.

mod kinds;

pub(crate) use kinds::{Kind, kind_of};

use flowforge_api::names::SCHEDULER_NAME;
use flowforge_api::topology::DEFAULT;
use flowforge_api::{ClusterTopology, ClusterTopologySpec};
use flowforge_scheduler_convert::gangs::Declaration;
use flowforge_scheduler_convert::gangs::beside::Surroundings;
use flowforge_scheduler_convert::{self as convert, Ours, types};
use flowforge_scheduler_core::config::Config;
use flowforge_scheduler_core::engine::Engine;
use flowforge_scheduler_core::event::Event;
use flowforge_scheduler_core::model::{Millis, PodInfo};
use flowforge_topology_core::{Levels, LevelsError};
use jiff::Timestamp;
use kinds::{KINDS, Reading, read};
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use serde_json::{Value, json};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::cluster::Cluster;
use crate::failure::Failure;

/// Objects asked for with one request.
const PAGE: u32 = 500;
/// What of a container scheduling never reads.
const PRIVATE: [&str; 7] = ["env", "envFrom", "command", "args", "lifecycle", "livenessProbe", "startupProbe"];
/// How to get a snapshot.
const WRITE: &str = "write one with `flowforge snapshot > FILE`";
/// Annotation that repeats the whole object.
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The objects of a cluster, each with `apiVersion` and `kind`.
pub(crate) struct Snapshot {
    objects: Vec<Value>,
    /// When it was taken.
    pub(crate) taken: Timestamp,
}

impl Snapshot {
    /// Reads everything. Kinds that the cluster does not have count as empty, and those that we may not read as well, which is
    /// told.
    pub(crate) async fn live(cluster: &Cluster) -> Result<Self, Failure> {
        let lists = futures::future::try_join_all(KINDS.iter().map(|kind| list(cluster, kind))).await?;
        Ok(Self { objects: lists.into_iter().flatten().collect(), taken: Timestamp::now() })
    }

    /// Reads a file that [`Self::file`] or kubectl wrote.
    pub(crate) fn of_file(path: &Path) -> Result<Self, Failure> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(format!("cannot read {shown}: {error}")).fix("check the path given with --snapshot")
        })?;
        let list = serde_json::from_str(&text)
            .map_err(|error| Failure::new(format!("{shown} is not a snapshot: {error}")).fix(WRITE))?;
        Self::of_list(list, &shown)
    }

    /// Reads a list of objects; `shown` names it in failures.
    pub(crate) fn of_list(mut list: Value, shown: &str) -> Result<Self, Failure> {
        let taken = list.get("taken").and_then(Value::as_str).and_then(|taken| taken.parse().ok());
        let Some(Value::Array(objects)) = list.get_mut("items").map(Value::take) else {
            return Err(Failure::new(format!("{shown} is not a snapshot: it has no list `items`")).fix(WRITE));
        };
        if !objects.iter().any(|object| kind_of(object).is_some_and(|kind| matches!(kind.reading, Reading::Node))) {
            return Err(Failure::new(format!("{shown} holds no Node, so that nothing could stand anywhere")).fix(WRITE));
        }
        Ok(Self { objects, taken: taken.unwrap_or_else(Timestamp::now) })
    }

    /// The form of a file.
    pub(crate) fn file(self) -> Value {
        json!({"apiVersion": "v1", "kind": "List", "taken": self.taken, "items": self.objects})
    }

    /// Adds objects that do not exist yet.
    pub(crate) fn add(&mut self, objects: impl IntoIterator<Item = Value>) {
        self.objects.extend(objects);
    }

    /// Priorities by the name of their class, and that of the default class under the empty name.
    pub(crate) fn priorities(&self) -> BTreeMap<String, i64> {
        let mut found = BTreeMap::new();
        let is_class = |object: &&Value| kind_of(object).is_some_and(|k| matches!(k.reading, Reading::PriorityClass));
        for class in self.objects.iter().filter(is_class) {
            let name = class.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let value = class.get("value").and_then(Value::as_i64).unwrap_or_default();
            found.insert(name.to_owned(), value);
            if class.get("globalDefault").and_then(Value::as_bool) == Some(true) {
                found.insert(String::new(), value);
            }
        }
        found
    }

    /// The time at which it was taken, as the core counts.
    pub(crate) fn now(&self) -> Millis {
        u64::try_from(self.taken.as_millisecond()).unwrap_or_default()
    }

    /// An engine that knows what is here, and has decided nothing. `source` names the snapshot in failures.
    pub(crate) fn engine(self, source: &str) -> Result<Engine, Failure> {
        let now = self.now();
        let mut facts = Facts::new();
        for object in self.objects {
            let name = title(&object);
            facts.take(object).map_err(|why| {
                Failure::new(format!("{source}: {name}: {why}")).fix("correct the field that is named")
            })?;
        }
        let mut engine = Engine::new(Config::default());
        for event in facts.events() {
            engine.apply(event, now, &mut Vec::new());
        }
        // Nominations count from now on, as for a scheduler that starts.
        engine.apply(Event::Follow, now, &mut Vec::new());
        Ok(engine)
    }
}

/// `Kind namespace/name`.
pub(crate) fn title(object: &Value) -> String {
    let text = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or_default();
    let namespace = text("/metadata/namespace");
    let slash = if namespace.is_empty() { "" } else { "/" };
    format!("{} {namespace}{slash}{}", text("/kind"), text("/metadata/name"))
}

/// The levels that a `ClusterTopology` names.
pub(crate) fn levels_of(spec: &ClusterTopologySpec) -> Result<Levels, LevelsError> {
    let levels = spec.levels.iter();
    Levels::new(
        levels.map(|level| (SmolStr::from(&level.name), level.labels.iter().map(SmolStr::from).collect())).collect(),
    )
}

async fn list(cluster: &Cluster, kind: &Kind) -> Result<Vec<Value>, Failure> {
    let api_version = kind.api_version();
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let resource = ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: api_version.into(),
        kind: kind.name.into(),
        plural: kind.plural().into(),
    };
    let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
    let mut params = ListParams::default().limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = match api.list(&params).await {
            Ok(page) => page,
            Err(kube::Error::Api(status)) if !kind.needed && status.code == 404 => return Ok(Vec::new()),
            Err(kube::Error::Api(status)) if !kind.needed && status.code == 403 => {
                eprintln!("left out: {} cannot be listed: {}", kind.plural(), status.message);
                return Ok(Vec::new());
            }
            Err(error) => return Err(Failure::of_request(&format!("list the {}", kind.plural()), &error)),
        };
        for object in page.items {
            let mut value = serde_json::to_value(object)
                .map_err(|error| Failure::new(format!("cannot take in the {}: {error}", kind.plural())))?;
            value["apiVersion"] = api_version.into();
            value["kind"] = kind.name.into();
            trim(&mut value);
            found.push(value);
        }
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(found);
        }
    }
}

/// Leaves out what scheduling does not read and others need not see.
fn trim(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(APPLIED);
        }
    }
    for list in ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"] {
        for container in object.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(fields) = container.as_object_mut() {
                PRIVATE.iter().for_each(|field| drop(fields.remove(*field)));
            }
        }
    }
}

/// The objects as facts of the core, in the order in which it may take them in.
struct Facts {
    ours: Ours,
    plain: Vec<Event>,
    pods: Vec<PodInfo>,
    declared: Vec<Box<dyn Declaration>>,
    around: Surroundings,
}

impl Facts {
    fn new() -> Self {
        let ours = Ours::new([SmolStr::new_static(SCHEDULER_NAME)]);
        let around = Surroundings::new(ours.clone());
        Self { ours, plain: Vec::new(), pods: Vec::new(), declared: Vec::new(), around }
    }

    fn take(&mut self, object: Value) -> Result<(), String> {
        let Some(kind) = kind_of(&object) else { return Ok(()) };
        let why = |error: serde_path_to_error::Error<serde_json::Error>| error.to_string();
        match kind.reading {
            Reading::Plain(event) => self.plain.push(event(object).map_err(why)?),
            Reading::Node => {
                let node: types::Node = read(object).map_err(why)?;
                self.plain.push(Event::NodeUpsert(Box::new(convert::node(&node))));
            }
            Reading::Pod => {
                let pod: types::Pod = read(object).map_err(why)?;
                self.pods.push(convert::pod(&pod, |name| self.ours.serves(name)));
            }
            Reading::Gang => {
                let gang: types::Gang = read(object).map_err(why)?;
                self.plain.extend(convert::gang(&gang).map(|gang| Event::GangUpsert(Box::new(gang))));
            }
            Reading::Topology => {
                let topology: ClusterTopology = read(object).map_err(why)?;
                if topology.metadata.name.as_deref() == Some(DEFAULT) {
                    let levels = levels_of(&topology.spec).map_err(|why| format!("spec.levels: {why}"))?;
                    self.plain.push(Event::Topology(levels.specs()));
                }
            }
            Reading::PriorityClass => {}
            Reading::Declared(declaration) => self.declared.push(declaration(object).map_err(why)?),
            Reading::Beside(fact) => {
                self.around.take(fact(object).map_err(why)?);
            }
        }
        Ok(())
    }

    /// What others declare counts where a pod of ours belongs to it.
    fn events(self) -> impl Iterator<Item = Event> {
        let member = |pod: &PodInfo| {
            let gang = pod.gang.as_ref().filter(|_| pod.ours)?;
            Some((pod.key.namespace.clone(), gang.name.clone()))
        };
        let gangs: BTreeSet<(SmolStr, SmolStr)> = self.pods.iter().filter_map(member).collect();
        let declared = self.declared.iter().map(|object| object.gang(&self.around));
        let declared: Vec<Event> = declared
            .filter(|gang| gangs.contains(&(gang.namespace.clone(), gang.name.clone())))
            .map(|gang| Event::GangUpsert(Box::new(gang)))
            .collect();
        let pods = self.pods.into_iter().map(|pod| Event::PodUpsert(Box::new(pod)));
        self.plain.into_iter().chain(declared).chain(pods)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_left_out_and_what_is_asked_for_stays() {
        let mut pod = json!({
            "metadata": {"name": "p", "managedFields": [{}], "annotations": {APPLIED: "{}", "a": "b"}},
            "spec": {"containers": [{"name": "c", "env": [{"name": "TOKEN", "value": "x"}], "args": ["--key=x"],
                "resources": {"requests": {"cpu": "1"}}}]},
        });
        trim(&mut pod);
        let kept = json!({
            "metadata": {"name": "p", "annotations": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
        });
        assert_eq!(pod, kept);
    }

    fn refused(text: &str) -> String {
        let path = std::env::temp_dir().join(format!("flowforge-snapshot-{}-{}", std::process::id(), text.len()));
        std::fs::write(&path, text).expect("a file");
        let read = Snapshot::of_file(&path).and_then(|snapshot| snapshot.engine("the snapshot").map(drop));
        std::fs::remove_file(&path).expect("removed");
        read.expect_err("refused").text()
    }

    #[test]
    fn a_file_that_is_no_snapshot_says_what_is_wrong_and_how_to_get_one() {
        assert!(refused("hello").contains("is not a snapshot: expected value at line 1"), "{}", refused("hello"));
        assert!(refused("{}").contains("no list `items`"));
        assert!(refused(r#"{"items": []}"#).contains("holds no Node"));
        let node = r#"{"items": [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {"unschedulable": 3}}]}"#;
        let text = refused(node);
        assert!(text.contains("the snapshot: Node n: spec.unschedulable: invalid type"), "{text}");
    }
}
