//! The connection to a cluster: which one, which namespace, and typed access to what the commands read and write.

use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::path::PathBuf;

use flowforge_api::names::label;
use flowforge_api::{Gang, Workflow};
use k8s_openapi::api::core::v1::Pod;

use crate::args::Global;
use crate::failure::{Failure, chain};

/// Objects asked for with one request.
const PAGE: u32 = 500;

/// The cluster that the flags and the environment name.
#[derive(Debug, Default)]
pub(crate) struct Target {
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    namespace: Option<String>,
}

impl From<Global> for Target {
    fn from(global: Global) -> Self {
        Self { kubeconfig: global.kubeconfig, context: global.context, namespace: global.namespace }
    }
}

impl Target {
    /// Makes a client; the first request may still find that nobody answers.
    pub(crate) async fn connect(&self) -> Result<Cluster, Failure> {
        let config = self.config().await.map_err(|cause| {
            Failure::new(format!("no cluster to talk to: {cause}"))
                .fix("name one with --kubeconfig FILE or KUBECONFIG, and --context if it is not the current one")
        })?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config)
            .map_err(|error| Failure::new(format!("cannot set up the connection: {}", chain(&error))))?;
        Ok(Cluster { client, namespace })
    }

    /// The namespace that the flags name.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    async fn config(&self) -> Result<Config, String> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        if let Some(path) = &self.kubeconfig {
            let file = Kubeconfig::read_from(path).map_err(|error| chain(&error))?;
            return Config::from_custom_kubeconfig(file, &options).await.map_err(|error| chain(&error));
        }
        if self.context.is_some() {
            return Config::from_kubeconfig(&options).await.map_err(|error| chain(&error));
        }
        Config::infer().await.map_err(|error| chain(&error))
    }
}

/// A cluster and the namespace that the command works in.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl Cluster {
    pub(crate) fn workflows(&self) -> Api<Workflow> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn gangs(&self) -> Api<Gang> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Workflows as they are stored, with fields that this version does not know.
    pub(crate) fn raw_workflows(&self, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = ApiResource::erase::<Workflow>(&());
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    pub(crate) async fn workflow(&self, name: &str) -> Result<Workflow, Failure> {
        self.workflows()
            .get_opt(name)
            .await
            .map_err(|error| Failure::of_request(&format!("read workflow {}", self.path(name)), &error))?
            .ok_or_else(|| self.absent("workflow", name))
    }

    /// The gangs of a workflow.
    pub(crate) async fn gangs_of(&self, workflow: &str) -> Result<Vec<Gang>, Failure> {
        let params = ListParams::default().labels(&format!("{}={workflow}", label::WORKFLOW));
        let doing = format!("list the gangs of workflow {}", self.path(workflow));
        Ok(self.gangs().list(&params).await.map_err(|error| Failure::of_request(&doing, &error))?.items)
    }

    /// The pods with these labels, which is the members of a gang or of a workflow's node.
    pub(crate) async fn pods_with(&self, labels: &str) -> Result<Vec<Pod>, Failure> {
        let params = ListParams::default().labels(labels);
        let doing = format!("list the pods with {labels} in {}", self.namespace);
        Ok(self.pods().list(&params).await.map_err(|error| Failure::of_request(&doing, &error))?.items)
    }

    /// `namespace/name`.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.namespace)
    }

    pub(crate) fn absent(&self, kind: &str, name: &str) -> Failure {
        Failure::new(format!("there is no {kind} {}", self.path(name))).fix("check the name and the namespace (-n)")
    }
}

/// All objects of a kind, page by page; `plural` names them in the failure.
pub(crate) async fn list_all<K>(api: &Api<K>, params: ListParams, plural: &str) -> Result<Vec<K>, Failure>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut params = params.limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page =
            api.list(&params).await.map_err(|error| Failure::of_request(&format!("list the {plural}"), &error))?;
        found.extend(page.items);
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(found);
        }
    }
}
