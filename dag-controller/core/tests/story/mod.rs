//! A workflow told one event at a time: what it is told, and what it then wants done, in words.
//!
//! Members are written `node.rank` (`train.2`), and `train.2r1` when made again once.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use flowforge_dag_controller_core::event::{MainContainer, Object, PodPhase, Refusal, RefusalKind};
use flowforge_dag_controller_core::ranks::pack;
use flowforge_dag_controller_core::{
    AttemptKey, Cause, Command, Config, Dag, Event, GangEnd, GangFacts, MemberKey, MemberLost, NodeIx, NodePhase,
    NodeSpec, Observed, PodFacts, Reason, Recorded, State, apply, rebuild,
};
use std::sync::Arc;

/// preprocess -> train (2 members) -> eval, publish.
pub(crate) fn diamond(member_lost: MemberLost) -> Arc<Dag> {
    let node = |id: &str, replicas| NodeSpec { member_lost, ..NodeSpec::of(id, replicas) };
    let nodes = vec![node("preprocess", 1), node("train", 2), node("eval", 1), node("publish", 1)];
    let edges = [(0, 1), (1, 2), (1, 3)].map(|(up, down)| (NodeIx(up), NodeIx(down)));
    Arc::new(Dag::new(nodes, edges.to_vec()).unwrap_or_else(|e| unreachable!("it is a diamond: {e}")))
}

pub(crate) struct Run {
    pub(crate) dag: Arc<Dag>,
    pub(crate) state: State,
    pub(crate) now_ms: u64,
    pub(crate) wake_at_ms: Option<u64>,
}

impl Run {
    pub(crate) fn new(member_lost: MemberLost) -> (Self, String) {
        Self::of(diamond(member_lost), Config::default(), Observed::default(), &Recorded::default())
    }

    pub(crate) fn of(dag: Arc<Dag>, config: Config, observed: Observed, recorded: &Recorded) -> (Self, String) {
        let mut out = Vec::new();
        let now_ms = 1_000_000;
        let state = rebuild(Arc::clone(&dag), config, observed, recorded, now_ms, &mut out);
        let mut run = Self { dag, state, now_ms, wake_at_ms: None };
        let shown = run.show(&out);
        (run, shown)
    }

    /// Applies an event; the commands that change something, in short.
    pub(crate) fn tell(&mut self, event: Event) -> String {
        self.now_ms += 10;
        let mut out = Vec::new();
        apply(&mut self.state, event, self.now_ms, &mut out);
        self.show(&out)
    }

    pub(crate) fn show(&mut self, commands: &[Command]) -> String {
        let mut shown = Vec::new();
        for command in commands {
            shown.push(match command {
                Command::CreateGang(k, None) => format!("gang {}", self.id(k.node)),
                Command::CreateGang(k, Some(plan)) => {
                    let charged = format!("{}+{}", plan.user, plan.infrastructure);
                    format!("gang {}#{} ({charged}, avoids {})", self.id(k.node), k.attempt, plan.avoid.join("+"))
                }
                Command::CreateService(k) => format!("service {}", self.id(k.node)),
                Command::CreatePod(k) => format!("pod {}", self.member(*k)),
                Command::DeletePod(k) => format!("delete {}", self.member(*k)),
                Command::RecordResult(k, end) => format!("record {} {:?} {}", self.member(*k), end.outcome, end.reason),
                Command::RemoveFinalizer(k) => format!("free {}", self.member(*k)),
                Command::FinishGang(k, end) => format!("finish {} {}", self.id(k.node), end.cause.reason),
                Command::DeleteWorkflow => "expire".to_owned(),
                Command::WakeAt { at_ms } => {
                    self.wake_at_ms = Some(*at_ms);
                    continue;
                }
                _ => continue,
            });
        }
        shown.join(", ")
    }

    pub(crate) fn id(&self, node: NodeIx) -> &str {
        &self.dag.node(node).id
    }

    pub(crate) fn member(&self, k: MemberKey) -> String {
        let again = if k.incarnation > 0 { format!("r{}", k.incarnation) } else { String::new() };
        format!("{}.{}{again}", self.id(k.node), k.rank)
    }

    pub(crate) fn attempt(&self, id: &str) -> AttemptKey {
        AttemptKey { node: self.dag.find(id).unwrap_or_default(), attempt: 1 }
    }

    /// `train.2r1`.
    pub(crate) fn key(&self, member: &str) -> MemberKey {
        let (id, rest) = member.split_once('.').unwrap_or((member, "0"));
        let (rank, incarnation) = rest.split_once('r').unwrap_or((rest, "0"));
        let AttemptKey { node, attempt } = self.attempt(id);
        MemberKey { node, attempt, rank: rank.parse().unwrap_or(0), incarnation: incarnation.parse().unwrap_or(0) }
    }

    pub(crate) fn gang(&mut self, id: &str) -> String {
        let key = self.attempt(id);
        self.tell(Event::Gang(key, GangFacts::default()))
    }

    pub(crate) fn pod(&mut self, member: &str, facts: PodFacts) -> String {
        let key = self.key(member);
        self.tell(Event::Pod(key, facts))
    }

    pub(crate) fn recorded(&mut self, member: &str) -> String {
        let key = self.key(member);
        self.tell(Event::Recorded(vec![key]))
    }

    pub(crate) fn finished(&mut self, id: &str, succeeded: bool, reason: Reason) -> String {
        let key = self.attempt(id);
        let end = GangEnd {
            succeeded,
            cause: Cause::of(reason),
            scheduled_at_ms: Some(1),
            started_at_ms: self.state.node(key.node).started_at_ms,
            finished_at_ms: self.now_ms,
            outputs: "".into(),
        };
        self.tell(Event::Gang(key, GangFacts { ended: Some(end), ..GangFacts::default() }))
    }

    pub(crate) fn refuse(&mut self, member: &str, kind: RefusalKind) -> String {
        let key = self.key(member);
        self.tell(Event::Refused(Object::Pod(key), Refusal { kind, message: "says the server".into() }))
    }

    /// Lets the time of the last wish come.
    pub(crate) fn wake(&mut self) -> String {
        self.now_ms = self.now_ms.max(self.wake_at_ms.take().unwrap_or(0));
        self.tell(Event::Timer)
    }

    /// From its release to its durable success.
    pub(crate) fn succeed(&mut self, id: &str) -> String {
        self.gang(id);
        for rank in 0..self.dag.node(self.attempt(id).node).replicas {
            self.pod(&format!("{id}.{rank}"), exited(0));
            self.recorded(&format!("{id}.{rank}"));
        }
        self.finished(id, true, Reason::Completed)
    }

    pub(crate) fn phase(&self, id: &str) -> NodePhase {
        self.state.node(self.attempt(id).node).phase
    }

    /// Packed as a Gang's status packs ranks.
    pub(crate) fn still_stopping(&self, id: &str) -> String {
        pack(&self.state.still_stopping(self.attempt(id).node))
    }

    pub(crate) fn phases(&self) -> Vec<NodePhase> {
        self.state.nodes().map(|n| n.phase).collect()
    }
}

pub(crate) fn pending() -> PodFacts {
    PodFacts { finalizer: true, ..PodFacts::default() }
}

pub(crate) fn bound() -> PodFacts {
    PodFacts { node: Some("n1".into()), ..pending() }
}

pub(crate) fn running() -> PodFacts {
    PodFacts { phase: PodPhase::Running, main: MainContainer::Running, ..bound() }
}

pub(crate) fn exited(exit_code: i32) -> PodFacts {
    let phase = if exit_code == 0 { PodPhase::Succeeded } else { PodPhase::Failed };
    PodFacts { phase, main: MainContainer::Ended { exit_code, reason: "Error".into(), finished_at_ms: 5 }, ..bound() }
}

pub(crate) fn deleting(facts: PodFacts) -> PodFacts {
    PodFacts { deletion_requested_at_ms: Some(4), ..facts }
}
