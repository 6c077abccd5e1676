//! Fields of KubeSchedulerConfiguration that are read and checked, so that a configuration of kube-scheduler can be used as
//! it is, and that FlowForge has no use for or its own flags.

use super::duration::GoDuration;
use super::findings::Findings;
use serde::Deserialize;
use std::time::Duration;

/// `leaderElection`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LeaderElection {
    /// Whether one of several processes leads.
    pub leader_elect: Option<bool>,
    /// How long a silent leader is waited for.
    pub lease_duration: Option<GoDuration>,
    /// How long the leader goes on without a renewal.
    pub renew_deadline: Option<GoDuration>,
    /// Pause between renewals.
    pub retry_period: Option<GoDuration>,
    /// Kind of the lock.
    pub resource_lock: Option<String>,
    /// Name of the lock.
    pub resource_name: Option<String>,
    /// Namespace of the lock.
    pub resource_namespace: Option<String>,
}

/// `clientConnection`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClientConnection {
    /// kubeconfig file.
    pub kubeconfig: Option<String>,
    /// Formats that are accepted.
    pub accept_content_types: Option<String>,
    /// Format that is sent.
    pub content_type: Option<String>,
    /// Requests per second.
    pub qps: Option<f64>,
    /// Requests at once.
    pub burst: Option<i64>,
}

impl LeaderElection {
    pub(super) fn check(&self, found: &mut Findings) {
        let at = "leaderElection";
        if self.leader_elect != Some(false) {
            let seconds = |given: Option<GoDuration>, default| given.map_or(Duration::from_secs(default), |d| d.0);
            let lease = seconds(self.lease_duration, 15);
            let renew = seconds(self.renew_deadline, 10);
            let retry = seconds(self.retry_period, 2);
            found.require(lease > renew, format_args!("{at}.leaseDuration"), "must be greater than renewDeadline");
            found.require(!renew.is_zero(), format_args!("{at}.renewDeadline"), "must be greater than 0");
            found.require(!retry.is_zero(), format_args!("{at}.retryPeriod"), "must be greater than 0");
            let lock = self.resource_lock.as_deref().unwrap_or("leases");
            found.require(lock == "leases", format_args!("{at}.resourceLock"), "must be leases");
        }
        found.notice_set(
            &self.leader_elect.filter(|elect| !elect),
            format_args!("{at}.leaderElect"),
            "has no effect: the Lease also fences the placement journal, so one is always held",
        );
        for (set, field, flag) in [
            (self.lease_duration.is_some(), "leaseDuration", "--lease-duration-s"),
            (self.renew_deadline.is_some(), "renewDeadline", "--lease-renew-deadline-ms"),
            (self.retry_period.is_some(), "retryPeriod", "--lease-retry-period-ms"),
            (self.resource_namespace.is_some(), "resourceNamespace", "--namespace"),
        ] {
            found.notice_set(
                &set.then_some(()),
                format_args!("{at}.{field}"),
                format_args!("has no effect; use the flag {flag}"),
            );
        }
        found.notice_set(
            &self.resource_name,
            format_args!("{at}.resourceName"),
            "has no effect: FlowForge's Lease has its own name",
        );
    }
}

impl ClientConnection {
    pub(super) fn check(&self, found: &mut Findings) {
        let at = "clientConnection";
        found.require(self.burst.is_none_or(|burst| burst >= 0), format_args!("{at}.burst"), "must not be negative");
        found.notice_set(&self.kubeconfig, format_args!("{at}.kubeconfig"), "has no effect; use the flag --kubeconfig");
        for (set, field) in [(self.qps.is_some(), "qps"), (self.burst.is_some(), "burst")] {
            found.notice_set(&set.then_some(()), format_args!("{at}.{field}"), "has no effect: the API server's own limits are followed; binding.parallelRequests bounds what is in flight");
        }
        for (set, field) in
            [(self.accept_content_types.is_some(), "acceptContentTypes"), (self.content_type.is_some(), "contentType")]
        {
            found.notice_set(&set.then_some(()), format_args!("{at}.{field}"), "has no effect: JSON is spoken");
        }
    }
}
