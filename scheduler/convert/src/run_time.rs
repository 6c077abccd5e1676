//! How long a pod runs at most: its deadline, which the kubelet enforces, or what its annotation says, whichever is shorter.

use crate::{duration, types};
use flowforge_api::names::annotation;
use flowforge_scheduler_core::model::Millis;
use smol_str::SmolStr;

/// What a pod declares; Err holds an annotation's text that is no duration, where there is no deadline either.
pub(super) fn declared(pod: &types::Pod) -> Option<Result<Millis, SmolStr>> {
    let seconds = pod.spec.active_deadline_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let deadline = seconds.map(|seconds| seconds.saturating_mul(1_000));
    let said = pod.metadata.annotations.get(annotation::EXPECTED_DURATION).map(|text| {
        let text = text.trim();
        let millis = duration::parse(text).map(|said| u64::try_from(said.as_millis()).unwrap_or(Millis::MAX));
        millis.ok_or_else(|| text.chars().take(63).collect::<SmolStr>())
    });
    match (deadline, said) {
        (Some(deadline), Some(Ok(said))) => Some(Ok(deadline.min(said))),
        (Some(deadline), _) => Some(Ok(deadline)),
        (None, said) => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(deadline: &Value, said: &Value) -> Option<Result<Millis, SmolStr>> {
        let annotations = if said.is_null() { json!({}) } else { json!({annotation::EXPECTED_DURATION: said}) };
        let pod = json!({"metadata": {"annotations": annotations}, "spec": {"activeDeadlineSeconds": deadline}});
        declared(&serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn the_shorter_of_deadline_and_annotation_counts() {
        assert_eq!(of(&Value::Null, &Value::Null), None);
        assert_eq!(of(&json!(60), &Value::Null), Some(Ok(60_000)));
        assert_eq!(of(&Value::Null, &json!(" 1h30m ")), Some(Ok(5_400_000)));
        assert_eq!(of(&json!(60), &json!("90s")), Some(Ok(60_000)));
        assert_eq!(of(&json!(60), &json!("30s")), Some(Ok(30_000)));
    }

    #[test]
    fn an_annotation_that_is_no_duration_is_kept_as_it_is_where_there_is_no_deadline() {
        assert_eq!(of(&Value::Null, &json!("2 hours")), Some(Err("2 hours".into())));
        assert_eq!(of(&json!(60), &json!("2 hours")), Some(Ok(60_000)));
    }
}
