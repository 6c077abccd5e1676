//! What a node reads of those it waits for: gathered here from their Gangs' records, evaluated off the shard.
//!
//! ```text
//!   Command::Judge ──gather: params, outputs, phases──> Question ──a blocking thread──> Judgement, the node with its texts filled
//! ```
//! What is read stands in the API server (outputs in Gangs, parameters in the spec), so that a controller that starts again
//! answers the same.

use flowforge_api::workflow::WorkflowNode;
use flowforge_dag_controller_core::event::Judgement;
use flowforge_dag_controller_core::expr::{self, Variables};
use flowforge_dag_controller_core::frontend::finish;
use flowforge_dag_controller_core::{AttemptKey, Cause, Event, NodeIx, NodePhase, Reason, State};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::flow::Flow;

const NAMES: [&str; 3] = ["params", "outputs", "phases"];

/// What a workflow's nodes may read, and what came of it.
#[derive(Debug, Default)]
pub struct Data {
    /// The values of the workflow's parameters.
    pub params: Arc<Value>,
    /// Nodes with texts that are filled when they are released.
    pub unfinished: BTreeSet<NodeIx>,
    /// Each `for` by its first instance: the id of its node, and where its instances stand among the nodes.
    pub groups: BTreeMap<NodeIx, (String, Range<u32>)>,
    /// Those that were filled.
    pub made: BTreeMap<NodeIx, Arc<WorkflowNode>>,
}

/// All that is needed to decide whether a node runs, and with which texts.
#[derive(Debug)]
pub struct Question {
    when: Option<String>,
    node: Option<WorkflowNode>,
    params: Arc<Value>,
    outputs: Value,
    phases: Value,
}

/// What became of a question.
#[derive(Debug)]
pub struct Answer {
    /// Whether the node runs.
    pub judgement: Judgement,
    /// The node with its texts filled, where it had any.
    pub node: Option<Box<WorkflowNode>>,
}

impl Answer {
    /// Of a question whose evaluation panicked; what it said is in the log.
    #[must_use]
    pub fn broken() -> Self {
        let detail = "its evaluation broke off; this is a bug of FlowForge, and the controller's log says where";
        let judgement = Judgement::Fail(Box::new(Cause::of(Reason::WhenInvalid).with_detail(detail)));
        Self { judgement, node: None }
    }
}

impl Question {
    /// The question about a node. O(its dependencies).
    #[must_use]
    pub fn about(flow: &Flow, at: NodeIx) -> Option<Self> {
        let node = flow.node(at)?;
        let state = flow.state()?;
        let (mut outputs, mut phases) = (Map::new(), Map::new());
        for id in node.depends_on.iter().map(|dependency| dependency.node()) {
            let Some(upstream) = state.dag().find(id) else { continue };
            outputs.insert(
                id.to_owned(),
                flow.outputs_of(upstream).map_or_else(|| Value::Object(Map::new()), Value::Object),
            );
            phases.insert(id.to_owned(), Value::from(format!("{:?}", state.node(upstream).phase)));
            if let Some((id, instances)) = flow.data.groups.get(&upstream) {
                outputs.insert(id.clone(), collected(flow, instances.clone()));
                phases.insert(id.clone(), Value::from(phase_of(state, instances.clone())));
            }
        }
        Some(Self {
            when: node.when.clone(),
            node: flow.data.unfinished.contains(&at).then(|| node.clone()),
            params: Arc::clone(&flow.data.params),
            outputs: Value::Object(outputs),
            phases: Value::Object(phases),
        })
    }

    /// Evaluates `when`, then fills the texts. Its cost is bounded, but may be milliseconds.
    #[must_use]
    pub fn answer(self) -> Answer {
        let fail = |reason, what: String| Answer {
            judgement: Judgement::Fail(Box::new(Cause::of(reason).with_detail(what))),
            node: None,
        };
        match self.holds() {
            Err(what) => return fail(Reason::WhenInvalid, what),
            Ok(false) => return Answer { judgement: Judgement::Skip, node: None },
            Ok(true) => {}
        }
        match self.finished() {
            Ok(node) => Answer { judgement: Judgement::Run, node: node.map(Box::new) },
            Err(what) => fail(Reason::TextInvalid, what),
        }
    }

    fn variables(&self) -> [(&str, &Value); 3] {
        [(NAMES[0], &*self.params), (NAMES[1], &self.outputs), (NAMES[2], &self.phases)]
    }

    fn holds(&self) -> Result<bool, String> {
        let Some(code) = &self.when else { return Ok(true) };
        let value = expr::compile(code, &NAMES).and_then(|when| Variables(&self.variables()).evaluate(&when));
        match value {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!(
                "when: {}: its value is {}, neither true nor false",
                expr::short(code),
                expr::short(&other.to_string())
            )),
            Err(what) => Err(format!("when: {}: {what}", expr::short(code))),
        }
    }

    /// The node with its texts filled.
    ///
    /// # Errors
    /// The first text that cannot be filled.
    pub fn finished(&self) -> Result<Option<WorkflowNode>, String> {
        let Some(node) = &self.node else { return Ok(None) };
        let mut fields = serde_json::to_value(node).map_err(|error| error.to_string())?;
        finish(&mut fields, &self.variables())?;
        serde_json::from_value(fields).map(Some).map_err(|error| error.to_string())
    }
}

/// The outputs of the instances of a `for`, each as a list in the order of the items. Those that were passed over are left
/// out; one that failed, and is no matter, counts as null.
fn collected(flow: &Flow, instances: Range<u32>) -> Value {
    let mut lists: BTreeMap<String, Value> = BTreeMap::new();
    let Some(state) = flow.state() else { return Value::Null };
    for at in instances.map(NodeIx).filter(|&at| state.node(at).phase != NodePhase::Skipped) {
        let said = flow.outputs_of(at).unwrap_or_default();
        let declared = state.dag().node(at).outputs.clone().unwrap_or_default();
        for output in &declared.0 {
            let list = lists.entry(output.name.to_string()).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.push(said.get(output.name.as_str()).cloned().unwrap_or_default());
            }
        }
    }
    Value::Object(lists.into_iter().collect())
}

/// One phase for all instances: Failed when one failed, Succeeded when one succeeded, else that of the first.
fn phase_of(state: &State, instances: Range<u32>) -> String {
    let phases: Vec<NodePhase> = instances.map(|at| state.node(NodeIx(at)).phase).collect();
    let found = [NodePhase::Failed, NodePhase::Succeeded].into_iter().find(|phase| phases.contains(phase));
    found.or(phases.first().copied()).map_or_else(String::new, |phase| format!("{phase:?}"))
}

impl Flow {
    /// The outputs that the last attempt of a node has left.
    #[must_use]
    pub fn outputs_of(&self, at: NodeIx) -> Option<Map<String, Value>> {
        let all = AttemptKey { node: at, attempt: 0 }..=AttemptKey { node: at, attempt: u32::MAX };
        self.attempts.range(all).next_back().and_then(|(_, attempt)| attempt.ledger.outputs())
    }

    /// Takes in the answer to a question; what the core is told.
    pub fn on_answer(&mut self, at: NodeIx, answer: Answer) -> Event {
        self.data.made.extend(answer.node.map(|made| (at, Arc::new(*made))));
        Event::Judged(at, answer.judgement)
    }

    /// A node as its pods are made from it: with its texts filled.
    ///
    /// # Errors
    /// When a text cannot be filled.
    pub fn made(&mut self, at: NodeIx) -> Result<Option<Arc<WorkflowNode>>, String> {
        if let Some(made) = self.data.made.get(&at) {
            return Ok(Some(Arc::clone(made)));
        }
        if !self.data.unfinished.contains(&at) {
            return Ok(None);
        }
        // Released by a former leader: what it was filled with is there still.
        let Some(question) = Question::about(self, at) else { return Ok(None) };
        let made = question.finished()?.map(Arc::new);
        self.data.made.extend(made.clone().map(|node| (at, node)));
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn question(when: Option<&str>, args: &[&str]) -> Question {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Question {
            when: when.map(str::to_owned),
            node: Some(WorkflowNode { id: "a".into(), replicas: 1, args, ..WorkflowNode::default() }),
            params: Arc::new(json!({"best": 0.5})),
            outputs: json!({"train": {"loss": 0.25, "path": "/x"}, "other": {}}),
            phases: json!({"train": "Succeeded", "other": "Skipped"}),
        }
    }

    #[test]
    fn a_condition_decides_and_texts_are_filled() {
        let when = "outputs.train.loss < params.best && phases.other == 'Skipped'";
        let answer = question(Some(when), &["--model=${{ outputs.train.path }}", "$${{ x }}"]).answer();
        assert_eq!(answer.judgement, Judgement::Run);
        assert_eq!(answer.node.unwrap().args, ["--model=/x", "${{ x }}"]);
        assert_eq!(question(Some("outputs.train.loss > params.best"), &[]).answer().judgement, Judgement::Skip);
    }

    #[test]
    fn what_cannot_be_evaluated_fails_with_its_reason() {
        let cases = [
            (Some("outputs.other.loss > 1"), vec![], "WhenInvalid: when: outputs.other.loss > 1: no such key: loss"),
            (Some("outputs.train.path"), vec![], "WhenInvalid: when: outputs.train.path: its value is \"/x\", neither"),
            (
                None,
                vec!["${{ outputs.train.accuracy }}"],
                "TextInvalid: args[0]: ${{ outputs.train.accuracy }}: no such key",
            ),
        ];
        for (when, args, expected) in cases {
            let Judgement::Fail(cause) = question(when, &args).answer().judgement else { panic!("{expected}") };
            let told = format!("{}: {}", cause.reason, cause.message());
            assert!(told.starts_with(expected), "{told}");
        }
    }
}
