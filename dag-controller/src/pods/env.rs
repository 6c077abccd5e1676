//! The environment that a member finds: who it is (`FLOWFORGE_*`) and how to meet its peers.
//!
//! `NNODES`, `NODE_RANK`, `NPROC_PER_NODE`, `MASTER_ADDR`, `MASTER_PORT` and torchrun's `PET_*` describe a static
//! rendezvous at rank 0. `RANK` and `WORLD_SIZE` are per process, so they are set only when a pod runs one process: torchrun
//! sets them itself otherwise. `FLOWFORGE_*_DIR` are folders on the first claim of `spec.storage` that is mounted for writing.
//! The user's own value wins over all of these, and none over `FLOWFORGE_*`.
//!
//! In a node with roles each role meets by itself: the rendezvous is that of the members of one role, at its first. How to find
//! the others says `FLOWFORGE_ROLES` (`launcher=0,worker=1-4`): the host of a rank is `$FLOWFORGE_GANG-RANK.$FLOWFORGE_GANG`.

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
    pub(super) role: RoleEnv<'a>,
    pub(super) nproc: u32,
    /// Name under which every member of its role reaches the first.
    pub(super) master: &'a str,
    /// Where a claim that all nodes share is mounted for writing.
    pub(super) shared: Option<&'a str>,
}

/// The members that a member meets: those of its role.
pub(super) struct RoleEnv<'a> {
    pub(super) name: &'a str,
    /// Its first rank, and how many it has.
    pub(super) first: u32,
    pub(super) replicas: u32,
    /// The ranks of every role, where the node has roles.
    pub(super) all: Option<&'a str>,
}

impl MemberEnv<'_> {
    fn identity(&self) -> Vec<EnvVar> {
        let mut env = vec![
            var("FLOWFORGE_WORKFLOW", self.workflow),
            var("FLOWFORGE_NAMESPACE", self.namespace),
            var("FLOWFORGE_NODE", self.node),
            var("FLOWFORGE_GANG", self.gang),
            var("FLOWFORGE_ATTEMPT", self.attempt),
            var("FLOWFORGE_RANK", self.rank),
            var("FLOWFORGE_REPLICAS", self.replicas),
        ];
        if let Some(all) = self.role.all {
            env.extend([
                var("FLOWFORGE_ROLE", self.role.name),
                var("FLOWFORGE_ROLE_RANK", self.role_rank()),
                var("FLOWFORGE_ROLE_REPLICAS", self.role.replicas),
                var("FLOWFORGE_ROLES", all),
            ]);
        }
        env.extend(self.shared.into_iter().flat_map(|shared| self.artifacts(shared)));
        env
    }

    fn role_rank(&self) -> u32 {
        self.rank.saturating_sub(self.role.first)
    }

    /// Folders by convention; whoever writes first makes them. Each attempt has its own for checkpoints, and is told that of
    /// the one before it: what an attempt left half written is never taken for its successor's.
    fn artifacts(&self, shared: &str) -> Vec<EnvVar> {
        let all = format!("{}/{}", shared.trim_end_matches('/'), self.workflow);
        let own = format!("{all}/{}", self.node);
        let checkpoints = |attempt: u32| format!("{own}/{attempt}");
        let mut env = vec![
            var("FLOWFORGE_ARTIFACTS_DIR", &all),
            var("FLOWFORGE_NODE_DIR", &own),
            var("FLOWFORGE_CHECKPOINT_DIR", checkpoints(self.attempt)),
        ];
        if self.attempt > 1 {
            env.push(var("FLOWFORGE_LAST_CHECKPOINT_DIR", checkpoints(self.attempt - 1)));
        }
        env
    }

    fn rendezvous(&self) -> Vec<EnvVar> {
        let endpoint = format!("{}:{MASTER_PORT}", self.master);
        let mut env = vec![
            var("NNODES", self.role.replicas),
            var("NODE_RANK", self.role_rank()),
            var("NPROC_PER_NODE", self.nproc),
            var("MASTER_ADDR", self.master),
            var("MASTER_PORT", MASTER_PORT),
            var("PET_NNODES", self.role.replicas),
            var("PET_NODE_RANK", self.role_rank()),
            var("PET_NPROC_PER_NODE", self.nproc),
            var("PET_MASTER_ADDR", self.master),
            var("PET_MASTER_PORT", MASTER_PORT),
            var("PET_RDZV_BACKEND", "static"),
            var("PET_RDZV_ENDPOINT", endpoint),
            var("PET_RDZV_ID", self.gang),
        ];
        if self.nproc == 1 {
            env.push(var("RANK", self.role_rank()));
            env.push(var("WORLD_SIZE", self.role.replicas));
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
