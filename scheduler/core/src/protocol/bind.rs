//! One member's way: the next command from what is known and what is wanted, and what the answers teach.
//!
//! ```text
//!                 ok ──────────────────────────────────────────────> Bound ──> Confirm (or ForeignBound elsewhere)
//!   Unbound ─Bind─┤                                                    ^
//!      ^          ├─ 409, unknown ─> Unsure ─GET─┬─ has a node ────────┘
//!      │          ├─ 404 ─────────────────────┐  ├─ other UID, 404, deleting, failed ─> Gone ──> MemberLost
//!      │          └─ 403, 422: withdraw       └──│──────────────────────────────────────^
//!      +── still unbound: same node, new resourceVersion ┘
//! ```
//! Invariants: a Binding is sent only when the journal holds its node and UID and all that the pod needs is there; after a Binding whose fate is unknown the
//! pod goes to another node, or is called unbound, only once it was re-versioned; a leader that reads a fence of a later
//! epoch follows, for the resourceVersion that it read would get past that fence.

use super::effects::Effect;
use super::intent::{Fact, Goal, Member, Phase};
use super::plan::{GangKey, shape_of};
use super::{Awaited, Cx, MemberRequest, Protocol, Timer};
use crate::command::{Command, Observation, OpId};
use crate::event::{BindResult, ReadResult, WriteResult};
use crate::model::{PodInfo, PodPhase};
use smol_str::SmolStr;

/// What a member should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Request(MemberRequest),
}

impl Protocol {
    /// Gives the member's next command, if there is one to give now.
    pub(super) fn drive(&mut self, seq: u64, index: usize, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get(&seq) else { return };
        let Some(member) = intent.members.get(index).filter(|_| !intent.dormant) else { return };
        let durable = intent.slots.get(member.part as usize).map(|slot| self.slots[*slot].durable);
        let recorded = durable.is_none_or(|durable| durable >= member.change);
        if !member.tasks.is_empty() {
            self.drive_tasks(seq, index, recorded, cx);
        }
        let Some(intent) = self.intents.get(&seq) else { return };
        let Some(member) = intent.members.get(index).filter(|member| member.op.is_none()) else { return };
        if matches!(intent.phase, Phase::RollingBack { .. }) && member.fact == Fact::Bound && !self.tolerant(member) {
            // Bound by someone else after the rollback was decided: not ours to delete.
            self.update(seq, index, |member| member.spared = true);
            return self.learn_gone(seq, index, cx);
        }
        let Step::Request(request) = next_step(&intent.phase, member, recorded) else { return };
        let bind = request == MemberRequest::Bind;
        let due = if bind { member.not_before.max(member.refused_until) } else { member.not_before };
        if cx.now < due {
            self.timers.insert((due, Timer::Member(seq, index)));
            return;
        }
        self.request(seq, index, request, cx);
    }

    fn request(&mut self, seq: u64, index: usize, request: MemberRequest, cx: &mut Cx<'_>) {
        let op = self.await_op(Awaited::Member(seq, index, request), cx.now);
        let Some(intent) = self.intents.get_mut(&seq) else { return };
        let id = intent.id.clone();
        let member = &intent.members[index];
        let pod = member.pod.clone();
        let resource_version = member.resource_version.clone();
        let command = match request {
            MemberRequest::Bind => {
                intent.timings.first_bind_at_ms.get_or_insert(cx.now);
                let node = intent.members[index].node.clone().unwrap_or_default();
                Command::Bind { op, pod, resource_version, node, intent: id }
            }
            MemberRequest::Read => Command::ReadPod { op, pod },
            MemberRequest::Fence => {
                let fence = SmolStr::from(format!("{}.{}", self.epoch, op.0));
                Command::FencePod { op, pod, resource_version: Some(resource_version), fence }
            }
            MemberRequest::Mark => {
                let gang = &intent.gang;
                let message = match &intent.phase {
                    Phase::RollingBack { cause, .. } => super::rollback::rolled_back(gang, cause),
                    _ => format!("the node of this member of {gang} is lost: a replacement takes its place"),
                };
                Command::MarkRollback { op, pod, message }
            }
            MemberRequest::Delete => Command::DeletePod { op, pod },
        };
        intent.update(index, |member| member.op = Some(op));
        cx.fx.commands.push(command);
    }

    /// Outcome of a Binding.
    pub(super) fn on_bind(&mut self, seq: u64, index: usize, result: BindResult, cx: &mut Cx<'_>) {
        // Even a refusal does not say that no copy of the request is still on its way.
        self.update(seq, index, Member::expose);
        match result {
            BindResult::Ok => {
                let node = self.member(seq, index).and_then(|member| member.node.clone()).unwrap_or_default();
                self.learn_bound(seq, index, &node, cx);
            }
            BindResult::NotFound => self.learn_gone(seq, index, cx),
            BindResult::Conflict(_) => self.learn_unsure(seq, index, false, cx),
            BindResult::Unknown(_) => self.learn_unsure(seq, index, true, cx),
            BindResult::Refused(message) => self.on_bind_refused(seq, index, message, cx),
        }
    }

    /// Outcome of a consistent read.
    pub(super) fn on_read(&mut self, seq: u64, index: usize, result: ReadResult, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get(&seq) else { return };
        let Some(member) = intent.members.get(index) else { return };
        let pod = match result {
            ReadResult::Unknown(_) => return self.learn_unsure(seq, index, true, cx),
            ReadResult::NotFound => return self.learn_gone(seq, index, cx),
            ReadResult::Found(pod) if pod.key.uid != member.pod.uid => return self.learn_gone(seq, index, cx),
            ReadResult::Found(pod) => pod,
        };
        if let Some(by_epoch) = epoch_of(pod.fence.as_ref()).filter(|epoch| *epoch > self.epoch) {
            // A later leader fenced the pod. The resourceVersion just read would get past that fence: stop here.
            cx.fx.effects.push(Effect::Fenced { by_epoch });
            return self.follow();
        }
        let left = matches!(intent.gang, GangKey::Gang { .. }) && GangKey::of(&pod) != intent.gang;
        if left && pod.node_name.is_some() {
            self.clear_tasks(seq, index);
            return self.learn_gone(seq, index, cx);
        }
        self.update(seq, index, |member| {
            member.recheck = false;
            member.left = left;
        });
        if !self.learn_final(seq, index, &pod, cx) {
            self.learn_unbound(seq, index, &pod, cx);
            self.let_go(seq, index, cx);
        }
    }

    /// Takes in what can never be taken back, whoever tells it: bound, ended, deleting. False: the pod is just unbound.
    pub(super) fn learn_final(&mut self, seq: u64, index: usize, pod: &PodInfo, cx: &mut Cx<'_>) -> bool {
        if self.intents.get(&seq).is_some_and(|intent| matches!(intent.phase, Phase::Closing { .. })) {
            return true;
        }
        self.update(seq, index, |member| member.owner.clone_from(&pod.owner));
        if pod.node_name.is_some() {
            // What was prepared is the pod's until it is gone, and then for the claim controllers to clear.
            self.clear_tasks(seq, index);
        }
        if pod.deleting || pod.phase == PodPhase::Failed {
            self.learn_gone(seq, index, cx);
        } else if let Some(node) = &pod.node_name {
            self.learn_bound(seq, index, node, cx);
            if pod.phase == PodPhase::Succeeded {
                self.update(seq, index, |member| member.fact = Fact::Done);
            }
        } else {
            return false;
        }
        true
    }

    /// What a list shows of an inherited member that nothing was learned of yet. It may be older than the present, which
    /// the precondition of the next command finds out.
    pub(super) fn learn_listed(&mut self, seq: u64, index: usize, pod: &PodInfo, cx: &mut Cx<'_>) {
        let unsure = self.member(seq, index).is_some_and(|member| member.fact == Fact::Unsure && member.failures == 0);
        let same = self.intents.get(&seq).is_some_and(|intent| GangKey::of(pod) == intent.gang);
        if unsure && same && !self.learn_final(seq, index, pod, cx) {
            self.learn_unbound(seq, index, pod, cx);
        }
    }

    /// A read or a list found the pod unbound.
    fn learn_unbound(&mut self, seq: u64, index: usize, pod: &PodInfo, cx: &mut Cx<'_>) {
        let epoch = self.epoch;
        let shape = shape_of(pod);
        let delay = self.member(seq, index).map_or(0, |member| self.config.backoff(member.failures));
        let alone = self.intents.get(&seq).is_some_and(|intent| intent.slots.is_empty());
        let mut replan = false;
        self.update(seq, index, |member| {
            let moved = member.resource_version != pod.resource_version;
            let other_shape = member.shape.is_some_and(|planned| planned != shape);
            member.fact = Fact::Unbound;
            member.resource_version.clone_from(&pod.resource_version);
            member.shape = Some(shape);
            // Fenced in this epoch: no Binding of a former leader can hold the present resourceVersion.
            member.inherited &= epoch_of(pod.fence.as_ref()) != Some(epoch);
            replan = member.goal == Goal::Bind && (other_shape || alone && (moved || pod.gated));
            if !moved && member.failures > 0 {
                member.not_before = cx.now + delay;
            }
        });
        if replan {
            self.unplace(seq, index);
        }
    }

    /// Ends the membership of a pod that left the gang, once no Binding of it can land.
    fn let_go(&mut self, seq: u64, index: usize, cx: &mut Cx<'_>) {
        let Some(member) = self.member(seq, index).filter(|member| member.left && member.is_safe()) else { return };
        cx.fx.effects.push(Effect::Release { pod: member.pod.clone() });
        self.learn_gone(seq, index, cx);
    }

    /// The pod is bound.
    pub(super) fn learn_bound(&mut self, seq: u64, index: usize, node: &SmolStr, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get_mut(&seq) else { return };
        let Some(member) = intent.members.get(index) else { return };
        if matches!(member.fact, Fact::Bound | Fact::Done | Fact::Gone) {
            return;
        }
        intent.timings.last_ack_at_ms = Some(cx.now);
        let pod = member.pod.clone();
        let planned = member.node.as_ref() == Some(node) || member.lost_node.as_ref() == Some(node);
        if planned {
            cx.fx.effects.push(Effect::Confirm { pod, node: node.clone() });
        } else {
            cx.fx.effects.push(Effect::ForeignBound { gang: intent.gang.clone(), pod, node: node.clone() });
            cx.fx.commands.push(Command::Observe(Observation::ForeignBind));
        }
        self.abandon(seq, index);
        self.clear_tasks(seq, index);
        self.update(seq, index, |member| {
            member.fact = Fact::Bound;
            member.was_bound = true;
            member.node = Some(node.clone());
            member.vacated = false;
            member.exposed = None;
            member.inherited = false;
            member.asked = false;
            member.failures = 0;
            member.conflicts = 0;
            member.not_before = 0;
            if member.goal == Goal::Place {
                member.goal = Goal::Bind;
            }
        });
        if self.member(seq, index).is_some_and(|member| member.lost_node.as_ref() == Some(node)) {
            self.evict(seq, index);
        }
    }

    /// The pod is gone for good, or will be.
    pub(super) fn learn_gone(&mut self, seq: u64, index: usize, cx: &mut Cx<'_>) {
        let Some(intent) = self.intents.get(&seq) else { return };
        let Some(member) = intent.members.get(index) else { return };
        if matches!(member.fact, Fact::Gone | Fact::Done) || matches!(intent.phase, Phase::Closing { .. }) {
            return;
        }
        if intent.moves_forward() {
            cx.fx.effects.push(intent.lost(member));
        }
        self.abandon(seq, index);
        self.update(seq, index, |member| {
            member.fact = Fact::Gone;
            member.exposed = None;
            member.inherited = false;
            member.asked = false;
            if member.goal == Goal::Evict {
                member.goal = Goal::Place;
            }
        });
    }

    /// The last command's fate, or the pod's, is unknown: it is read, at once or after a backoff.
    pub(super) fn learn_unsure(&mut self, seq: u64, index: usize, later: bool, cx: &mut Cx<'_>) {
        let delay = self.member(seq, index).map_or(0, |member| self.config.backoff(member.failures));
        self.update(seq, index, |member| {
            if member.fact == Fact::Unbound {
                member.fact = Fact::Unsure;
            }
            member.failures = member.failures.saturating_add(1);
            // Silence is nobody's fault: only definite refusals count as trouble.
            member.conflicts = member.conflicts.saturating_add(u32::from(!later));
            member.not_before = if later { cx.now + delay } else { cx.now };
        });
    }

    /// Outcome of a fence: with the resourceVersion as precondition, success also proves that the pod was unbound.
    pub(super) fn on_fenced(&mut self, seq: u64, index: usize, result: WriteResult, cx: &mut Cx<'_>) {
        match result {
            WriteResult::Ok(resource_version) => {
                self.update(seq, index, |member| {
                    member.fact = Fact::Unbound;
                    member.resource_version = resource_version;
                    member.exposed = None;
                    member.inherited = false;
                    member.failures = 0;
                    member.conflicts = 0;
                });
                self.let_go(seq, index, cx);
            }
            WriteResult::NotFound => self.learn_gone(seq, index, cx),
            WriteResult::Conflict => self.learn_unsure(seq, index, false, cx),
            WriteResult::Unknown(_) => self.learn_unsure(seq, index, true, cx),
            WriteResult::Refused(message) => self.refused_later(seq, index, message, cx),
        }
    }

    /// A write that is needed is refused: say so, and try again much later.
    pub(super) fn refused_later(&mut self, seq: u64, index: usize, message: String, cx: &mut Cx<'_>) {
        let not_before = cx.now + self.config.refused_retry_ms;
        self.update(seq, index, |member| member.not_before = not_before);
        let gang = self.intents.get(&seq).map(|intent| intent.gang.clone());
        cx.fx.effects.push(Effect::WriteRefused { gang, message });
    }

    /// Stops waiting for the member's command, whose answer no longer matters.
    pub(super) fn abandon(&mut self, seq: u64, index: usize) {
        let Some(op) = self.member(seq, index).and_then(|member| member.op) else { return };
        self.forget_op(op);
        self.update(seq, index, |member| member.op = None);
    }

    /// Stops waiting for a Binding, which may still land: the member is fenced next. Other commands are waited for.
    pub(super) fn abandon_bind(&mut self, seq: u64, index: usize) {
        let Some(op) = self.member(seq, index).and_then(|member| member.op) else { return };
        if matches!(self.awaited.get(&op), Some((Awaited::Member(_, _, MemberRequest::Bind), _))) {
            self.abandon(seq, index);
            self.update(seq, index, Member::expose);
        }
    }

    /// Clears the command that was answered; false when it is not awaited (any more).
    pub(super) fn answered(&mut self, op: OpId, seq: u64, index: usize) -> bool {
        if self.member(seq, index).is_none_or(|member| member.op != Some(op)) {
            return false;
        }
        self.update(seq, index, |member| member.op = None);
        true
    }
}

/// The whole decision about a member, as a table.
fn next_step(phase: &Phase, member: &Member, recorded: bool) -> Step {
    use MemberRequest as R;
    let deletes = match phase {
        Phase::RollingBack { recorded, .. } => *recorded,
        Phase::Open => recorded && member.goal == Goal::Evict,
        Phase::Recording { .. } | Phase::Preparing | Phase::Withdrawing { .. } | Phase::Closing { .. } => false,
    };
    let request = match (member.fact, member.goal) {
        _ if matches!(phase, Phase::Recording { .. } | Phase::Closing { .. }) => return Step::Nothing,
        // Nothing of a rollback happens before the journal holds it.
        _ if matches!(phase, Phase::RollingBack { recorded: false, .. }) => return Step::Nothing,
        (Fact::Gone | Fact::Done, _) => return Step::Nothing,
        (Fact::Unsure, _) => R::Read,
        (Fact::Bound, _) if !deletes => return Step::Nothing,
        (Fact::Bound, _) if member.recheck => R::Read,
        (Fact::Bound, _) if !member.marked => R::Mark,
        (Fact::Bound, _) => R::Delete,
        (Fact::Unbound, _) if member.left && member.may_land() => R::Fence,
        (Fact::Unbound, Goal::Bind) if recorded && *phase == Phase::Open && member.is_prepared() => R::Bind,
        (Fact::Unbound, Goal::Bind) => return Step::Nothing,
        (Fact::Unbound, Goal::Place | Goal::Undo | Goal::Evict) if member.may_land() => R::Fence,
        (Fact::Unbound, _) => return Step::Nothing,
    };
    Step::Request(request)
}

/// Epoch of the leader that set a fence.
pub(super) fn epoch_of(fence: Option<&SmolStr>) -> Option<u64> {
    let (epoch, _) = fence?.split_once('.')?;
    epoch.parse().ok()
}
