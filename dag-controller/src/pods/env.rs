//! The environment that a member finds: who it is (`FLOWFORGE_*`) and how to meet its peers.
//!
//! `NNODES`, `NODE_RANK`, `NPROC_PER_NODE`, `MASTER_ADDR`, `MASTER_PORT` and torchrun's `PET_*` describe a static
//! rendezvous at rank 0. `RANK` and `WORLD_SIZE` are per process, so they are set only when a pod runs one process: torchrun
//! sets them itself otherwise. The user's own value wins over all of these, and none over `FLOWFORGE_*`.

use k8s_openapi::api::core::v1::{Container, EnvVar};

/// Port at which rank 0 waits for its peers.
pub(crate) const MASTER_PORT: i32 = 29500;

/// What the environment of a member is made of.
pub(super) struct MemberEnv<'a> {
    pub(super) workflow: &'a str,
    pub(super) namespace: &'a str,
    pub(super) node: &'a str,
    pub(super) gang: &'a str,
    pub(super) attempt: u32,
    pub(super) rank: u32,
    pub(super) replicas: u32,
    pub(super) nproc: u32,
    /// Name under which every member reaches rank 0.
    pub(super) master: &'a str,
}

impl MemberEnv<'_> {
    fn identity(&self) -> Vec<EnvVar> {
        vec![
            var("FLOWFORGE_WORKFLOW", self.workflow),
            var("FLOWFORGE_NAMESPACE", self.namespace),
            var("FLOWFORGE_NODE", self.node),
            var("FLOWFORGE_GANG", self.gang),
            var("FLOWFORGE_ATTEMPT", self.attempt),
            var("FLOWFORGE_RANK", self.rank),
            var("FLOWFORGE_REPLICAS", self.replicas),
        ]
    }

    fn rendezvous(&self) -> Vec<EnvVar> {
        let endpoint = format!("{}:{MASTER_PORT}", self.master);
        let mut env = vec![
            var("NNODES", self.replicas),
            var("NODE_RANK", self.rank),
            var("NPROC_PER_NODE", self.nproc),
            var("MASTER_ADDR", self.master),
            var("MASTER_PORT", MASTER_PORT),
            var("PET_NNODES", self.replicas),
            var("PET_NODE_RANK", self.rank),
            var("PET_NPROC_PER_NODE", self.nproc),
            var("PET_MASTER_ADDR", self.master),
            var("PET_MASTER_PORT", MASTER_PORT),
            var("PET_RDZV_BACKEND", "static"),
            var("PET_RDZV_ENDPOINT", endpoint),
            var("PET_RDZV_ID", self.gang),
        ];
        if self.nproc == 1 {
            env.push(var("RANK", self.rank));
            env.push(var("WORLD_SIZE", self.replicas));
        }
        env
    }

    /// Adds both groups to `container`, before the user's own variables so that those may refer to them. A user's value
    /// for a rendezvous variable stays where the user wrote it, because it may refer to variables before it.
    pub(super) fn add_to(&self, container: &mut Container) {
        let identity = self.identity();
        let own: Vec<EnvVar> = container.env.take().unwrap_or_default();
        let own = own.into_iter().filter(|e| identity.iter().all(|i| i.name != e.name)).collect::<Vec<_>>();
        let rendezvous = self.rendezvous().into_iter().filter(|e| own.iter().all(|o| o.name != e.name));
        let mut env: Vec<EnvVar> = identity.iter().cloned().chain(rendezvous).collect();
        env.extend(own);
        container.env = Some(env);
    }
}

#[expect(clippy::needless_pass_by_value, reason = "a table of variables reads best without borrows")]
fn var(name: &str, value: impl ToString) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_string()), value_from: None }
}
