//! The election itself, without IO: what to do next with a Lease that was read or written at a given moment.
//!
//! client-go's algorithm: a holder's time runs out `leaseDuration` after *we* last saw its record change, by our own
//! monotonic clock; wall clocks in the record are only compared for equality. Every write is a compare-and-swap.
//!
//! ```text
//!              read: free, released or expired            acknowledged
//!   Follower ────────────────────────────────> (claim) ─────────────────> Leader ──renewal──> Leader
//!      ^                                          |                          |
//!      └────────────── refused ───────────────────┘<── another holder seen, or renewDeadline passed
//! ```
//! Invariants: the epoch (`leaseTransitions`) grows with every acquisition, also when the same process comes back; a
//! leader's deadline counts from the moment its last acknowledged write was *started*.

use std::time::Duration;

/// How long a Lease lasts and how it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTiming {
    /// How long others wait after the last change they saw.
    pub duration: Duration,
    /// How long the leader goes on without an acknowledged renewal; the difference to `duration` is the safety margin
    /// for clocks that run at different speed.
    pub renew_deadline: Duration,
    /// Pause between renewals, and between looks at another's Lease.
    pub retry_period: Duration,
}

impl Default for LeaseTiming {
    /// client-go's defaults: 15 s, 10 s and 2 s.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

impl LeaseTiming {
    /// Checks that the three fit together.
    ///
    /// # Errors
    /// A sentence for the person who set them.
    pub fn validate(&self) -> Result<(), String> {
        if self.duration.subsec_nanos() != 0 || self.duration.is_zero() {
            return Err(format!("lease duration {:?} must be a whole number of seconds, at least 1 s", self.duration));
        }
        if self.renew_deadline >= self.duration {
            return Err(format!(
                "renew deadline {:?} must be shorter than the lease duration {:?}",
                self.renew_deadline, self.duration
            ));
        }
        if self.retry_period.is_zero() || self.retry_period.mul_f64(1.2) >= self.renew_deadline {
            return Err(format!(
                "retry period {:?} must be positive and 1.2 times it shorter than the renew deadline {:?}",
                self.retry_period, self.renew_deadline
            ));
        }
        Ok(())
    }

    /// Longest a request under this lease may take: several fit into what remains after a renewal, and one that the server
    /// still works on when the leader has stopped ends before another can hold the lease.
    #[must_use]
    pub fn request_timeout(&self, wanted: Duration) -> Duration {
        wanted.min(self.renew_deadline / 2).min(self.duration.saturating_sub(self.renew_deadline))
    }
}

/// What a Lease says. Times are opaque: they are compared, never computed with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Holder; empty when released.
    pub holder: String,
    /// `leaseDurationSeconds` in milliseconds.
    pub duration_ms: u64,
    /// `leaseTransitions`.
    pub transitions: i64,
    /// `acquireTime` as text.
    pub acquire_time: String,
    /// `renewTime` as text.
    pub renew_time: String,
}

/// A claim to write into the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// `leaseTransitions`, the epoch of the claimant.
    pub epoch: i64,
    /// Whether this begins a term; otherwise it renews one.
    pub begins: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read the Lease.
    Read,
    /// Create the Lease.
    Create(Claim),
    /// Replace the Lease as it was at this resourceVersion.
    Replace {
        /// Precondition.
        resource_version: String,
        /// New content.
        claim: Claim,
    },
    /// Another holds it: look again at this moment at the latest.
    Wait {
        /// When the holder's time runs out unless it renews.
        expires_ms: u64,
    },
}

#[derive(Clone, Debug)]
struct Held {
    epoch: i64,
    written_epoch: i64,
    renewed_ms: u64,
    resource_version: Option<String>,
}

/// One contender's view of one Lease. All times are milliseconds of one monotonic clock.
#[derive(Clone, Debug)]
pub struct Election {
    identity: String,
    duration_ms: u64,
    renew_deadline_ms: u64,
    observed: Option<(Record, u64)>,
    /// Since when the observed Lease is seen to be gone, and when that was seen last.
    gone: Option<(u64, u64)>,
    held: Option<Held>,
    terms: u64,
}

impl Election {
    /// A contender; `identity` must belong to this process alone.
    #[must_use]
    pub fn new(identity: String, timing: &LeaseTiming) -> Self {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (duration_ms, renew_deadline_ms) = (ms(timing.duration), ms(timing.renew_deadline));
        Self { identity, duration_ms, renew_deadline_ms, observed: None, gone: None, held: None, terms: 0 }
    }

    /// What to do now: a leader renews what it last wrote without reading it first, all others read.
    #[must_use]
    pub fn next(&self) -> Action {
        match &self.held {
            Some(Held { epoch, resource_version: Some(resource_version), .. }) => Action::Replace {
                resource_version: resource_version.clone(),
                claim: Claim { epoch: *epoch, begins: false },
            },
            _ => Action::Read,
        }
    }

    /// The Lease was read (None: it does not exist).
    pub fn on_read(&mut self, read: Option<(Record, String)>, now_ms: u64) -> Action {
        let Some((record, resource_version)) = read else { return self.on_absent(now_ms) };
        self.gone = None;
        if self.observed.as_ref().is_none_or(|(seen, _)| *seen != record) {
            self.observed = Some((record.clone(), now_ms));
        }
        if let Some(held) = &self.held {
            let ours = [held.epoch, held.written_epoch].contains(&record.transitions);
            if record.holder == self.identity && ours {
                return Action::Replace { resource_version, claim: Claim { epoch: held.epoch, begins: false } };
            }
            self.held = None;
        }
        let seen_ms = self.observed.as_ref().map_or(now_ms, |(_, at)| *at);
        let expires_ms = seen_ms.saturating_add(record.duration_ms);
        // Our own name without a term: a claim of ours whose answer was lost, or a term that we gave up.
        let free = record.holder.is_empty() || record.holder == self.identity || now_ms >= expires_ms;
        if free {
            let epoch = record.transitions.saturating_add(1);
            Action::Replace { resource_version, claim: Claim { epoch, begins: true } }
        } else {
            Action::Wait { expires_ms }
        }
    }

    /// The Lease does not exist. Unless this contender leads, or never saw a Lease, another may have held it when someone
    /// deleted it, and not know yet: its time runs from now on. Epochs go on as far as this contender has seen them.
    fn on_absent(&mut self, now_ms: u64) -> Action {
        let Some((record, _)) = &self.observed else {
            return Action::Create(Claim { epoch: 1, begins: true });
        };
        let held = self.held.take();
        // Between two looks that lie far apart it may have been made, and deleted, once more.
        let far_ms = self.duration_ms.saturating_sub(self.renew_deadline_ms);
        let since = self.gone.filter(|(_, seen_ms)| now_ms.saturating_sub(*seen_ms) <= far_ms);
        let gone_since_ms = since.map_or(now_ms, |(since_ms, _)| since_ms);
        self.gone = Some((gone_since_ms, now_ms));
        let expires_ms = gone_since_ms.saturating_add(self.duration_ms.max(record.duration_ms));
        if held.is_none() && now_ms < expires_ms {
            return Action::Wait { expires_ms };
        }
        let last = held.map_or(record.transitions, |held| held.epoch.max(record.transitions));
        Action::Create(Claim { epoch: last.saturating_add(1), begins: true })
    }

    /// A claim was acknowledged; `started_ms` is when its request was started.
    pub fn on_written(&mut self, claim: &Claim, record: Record, resource_version: String, started_ms: u64) {
        self.observed = Some((record, started_ms));
        self.gone = None;
        self.terms += u64::from(claim.begins);
        let raised = self.held.as_ref().filter(|_| !claim.begins).map_or(claim.epoch, |held| held.epoch);
        self.held = Some(Held {
            epoch: claim.epoch.max(raised),
            written_epoch: claim.epoch,
            renewed_ms: started_ms,
            resource_version: Some(resource_version),
        });
    }

    /// A write was refused or its outcome is unknown: the next step reads.
    pub fn on_write_failed(&mut self) {
        if let Some(held) = &mut self.held {
            held.resource_version = None;
        }
    }

    /// How many terms have begun: a renewal keeps this, taking the Lease again does not.
    #[must_use]
    pub fn terms(&self) -> u64 {
        self.terms
    }

    /// Epoch of the term, while leading.
    #[must_use]
    pub fn epoch(&self) -> Option<i64> {
        self.held.as_ref().map(|held| held.epoch)
    }

    /// Epoch that the Lease is known to hold for this term, while leading.
    #[must_use]
    pub fn written_epoch(&self) -> Option<i64> {
        self.held.as_ref().map(|held| held.written_epoch)
    }

    /// `acquireTime` as last seen, which a renewal repeats.
    #[must_use]
    pub fn acquire_time(&self) -> Option<&str> {
        self.observed.as_ref().map(|(record, _)| record.acquire_time.as_str())
    }

    /// Raises the epoch of the term; the next renewal writes it. A Lease that someone deleted starts again at 1 where
    /// nobody remembers it, and whoever knows of a higher epoch says so here.
    pub fn raise_epoch(&mut self, at_least: i64) {
        if let Some(held) = &mut self.held {
            held.epoch = held.epoch.max(at_least);
        }
    }

    /// Until when this contender leads without another renewal.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        self.held.as_ref().map(|held| held.renewed_ms.saturating_add(self.renew_deadline_ms))
    }

    /// Ends the term when its deadline has passed; true when this contender still leads.
    pub fn leads(&mut self, now_ms: u64) -> bool {
        if self.deadline_ms().is_some_and(|deadline| now_ms >= deadline) {
            self.held = None;
        }
        self.held.is_some()
    }

    /// Ends the term by choice; what to write so that others need not wait, where that is still ours to write.
    pub fn stand_down(&mut self) -> Option<(String, i64)> {
        let held = self.held.take()?;
        held.resource_version.map(|resource_version| (resource_version, held.epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE_MS: u64 = 15_000;

    fn contender(name: &str) -> Election {
        Election::new(name.to_owned(), &LeaseTiming::default())
    }

    fn record(holder: &str, transitions: i64, renew_time: &str) -> Record {
        Record {
            holder: holder.to_owned(),
            duration_ms: LEASE_MS,
            transitions,
            acquire_time: "t0".to_owned(),
            renew_time: renew_time.to_owned(),
        }
    }

    fn begins(epoch: i64) -> Claim {
        Claim { epoch, begins: true }
    }

    #[test]
    fn an_absent_lease_is_created_with_epoch_one() {
        let mut a = contender("a");
        assert_eq!(a.next(), Action::Read);
        assert_eq!(a.on_read(None, 0), Action::Create(begins(1)));
    }

    #[test]
    fn anothers_lease_is_taken_only_after_its_duration_without_a_seen_change() {
        let mut a = contender("a");
        let seen = || Some((record("b", 4, "t1"), "10".to_owned()));
        assert_eq!(a.on_read(seen(), 1_000), Action::Wait { expires_ms: 1_000 + LEASE_MS });
        assert_eq!(a.on_read(seen(), 15_999), Action::Wait { expires_ms: 16_000 });
        let renewed = Some((record("b", 4, "t2"), "11".to_owned()));
        assert_eq!(a.on_read(renewed.clone(), 16_000), Action::Wait { expires_ms: 31_000 }, "a change starts it anew");
        assert_eq!(a.on_read(renewed, 31_000), Action::Replace { resource_version: "11".to_owned(), claim: begins(5) });
    }

    #[test]
    fn a_touched_object_whose_record_is_unchanged_does_not_prolong_the_lease() {
        let mut a = contender("a");
        a.on_read(Some((record("b", 1, "t1"), "10".to_owned())), 0);
        let annotated = Some((record("b", 1, "t1"), "99".to_owned()));
        assert_eq!(
            a.on_read(annotated, LEASE_MS),
            Action::Replace { resource_version: "99".to_owned(), claim: begins(2) }
        );
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let mut a = contender("a");
        assert_eq!(
            a.on_read(Some((record("", 7, "t1"), "3".to_owned())), 0),
            Action::Replace { resource_version: "3".to_owned(), claim: begins(8) }
        );
    }

    #[test]
    fn a_leader_renews_without_reading_and_counts_from_the_start_of_the_request() {
        let mut a = contender("a");
        a.on_written(&begins(3), record("a", 3, "t1"), "20".to_owned(), 500);
        assert_eq!(a.deadline_ms(), Some(10_500));
        assert_eq!(
            a.next(),
            Action::Replace { resource_version: "20".to_owned(), claim: Claim { epoch: 3, begins: false } }
        );
        assert!(a.leads(10_499));
        assert!(!a.leads(10_500));
        assert_eq!(a.next(), Action::Read);
    }

    #[test]
    fn a_renewal_with_a_lost_answer_is_read_back_and_continued() {
        let mut a = contender("a");
        a.on_written(&begins(3), record("a", 3, "t1"), "20".to_owned(), 0);
        a.on_write_failed();
        assert_eq!(a.next(), Action::Read);
        assert_eq!(
            a.on_read(Some((record("a", 3, "t2"), "21".to_owned())), 2_000),
            Action::Replace { resource_version: "21".to_owned(), claim: Claim { epoch: 3, begins: false } }
        );
        assert_eq!(a.deadline_ms(), Some(10_000), "an unacknowledged renewal buys no time");
    }

    #[test]
    fn a_leader_that_sees_another_holder_stops_at_once() {
        let mut a = contender("a");
        a.on_written(&begins(3), record("a", 3, "t1"), "20".to_owned(), 0);
        a.on_write_failed();
        assert!(matches!(a.on_read(Some((record("b", 4, "t2"), "22".to_owned())), 100), Action::Wait { .. }));
        assert!(!a.leads(101));
    }

    #[test]
    fn a_term_that_lapsed_unnoticed_by_others_comes_back_with_a_higher_epoch() {
        let mut a = contender("a");
        a.on_written(&begins(3), record("a", 3, "t1"), "20".to_owned(), 0);
        assert!(!a.leads(12_000), "paused past the deadline");
        assert_eq!(
            a.on_read(Some((record("a", 3, "t1"), "20".to_owned())), 12_001),
            Action::Replace { resource_version: "20".to_owned(), claim: begins(4) }
        );
    }

    #[test]
    fn a_deleted_lease_ends_the_term() {
        let mut a = contender("a");
        a.on_written(&begins(3), record("a", 3, "t1"), "20".to_owned(), 0);
        a.on_write_failed();
        assert_eq!(a.on_read(None, 10), Action::Create(begins(4)), "with the next epoch");
        assert_eq!(a.epoch(), None);
        a.on_written(&begins(4), record("a", 4, "t2"), "30".to_owned(), 20);
        assert_eq!(a.terms(), 2, "made again, it is another term");
    }

    #[test]
    fn anothers_deleted_lease_is_made_again_when_its_holder_must_have_noticed() {
        let mut a = contender("a");
        a.on_read(Some((record("b", 4, "t1"), "10".to_owned())), 1_000);
        assert_eq!(a.on_read(None, 9_000), Action::Wait { expires_ms: 9_000 + LEASE_MS });
        for now_ms in [12_000, 16_000, 20_000, 23_999] {
            assert_eq!(a.on_read(None, now_ms), Action::Wait { expires_ms: 24_000 });
        }
        assert_eq!(a.on_read(None, 24_000), Action::Create(begins(5)));
        let again = Some((record("b", 5, "t2"), "12".to_owned()));
        assert_eq!(a.on_read(again, 24_100), Action::Wait { expires_ms: 24_100 + LEASE_MS });
        assert_eq!(a.on_read(None, 25_000), Action::Wait { expires_ms: 25_000 + LEASE_MS }, "the time runs anew");
    }

    #[test]
    fn a_raised_epoch_is_what_the_next_renewal_writes() {
        let mut a = contender("a");
        a.on_written(&begins(1), record("a", 1, "t1"), "20".to_owned(), 0);
        a.raise_epoch(9);
        assert!(matches!(a.next(), Action::Replace { claim: Claim { epoch: 9, begins: false }, .. }));
        a.raise_epoch(2);
        assert_eq!(a.epoch(), Some(9));
    }

    #[test]
    fn standing_down_releases_only_what_is_surely_ours() {
        let mut a = contender("a");
        assert_eq!(a.stand_down(), None);
        a.on_written(&begins(3), record("a", 3, "t1"), "20".to_owned(), 0);
        assert_eq!(a.stand_down(), Some(("20".to_owned(), 3)));
        a.on_written(&begins(4), record("a", 4, "t1"), "21".to_owned(), 0);
        a.on_write_failed();
        assert_eq!(a.stand_down(), None);
    }

    #[test]
    fn a_request_ends_at_the_server_before_another_can_hold_the_lease() {
        let timing = LeaseTiming::default();
        assert_eq!(timing.request_timeout(Duration::from_secs(30)), Duration::from_secs(5));
        assert_eq!(timing.request_timeout(Duration::from_secs(2)), Duration::from_secs(2));
        let tight = LeaseTiming { renew_deadline: Duration::from_secs(14), ..timing };
        assert_eq!(tight.request_timeout(Duration::from_secs(30)), Duration::from_secs(1));
    }

    /// Three contenders on one simulated Lease, with pauses and lost answers: never two leaders at one moment. In every other
    /// run the Lease is deleted at times; then epochs need not grow, for a contender may have missed the last ones.
    #[test]
    fn three_contenders_with_pauses_and_lost_answers_never_lead_together() {
        for seed in 0..200_u64 {
            let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1));
            simulate(&mut random, seed);
        }
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }
    }

    #[derive(Default)]
    struct Server {
        lease: Option<(Record, u64)>,
        writes: u64,
    }

    impl Server {
        fn write(&mut self, precondition: Option<&str>, identity: &str, claim: &Claim) -> Option<(Record, String)> {
            let matches = match (&self.lease, precondition) {
                (None, None) => true,
                (Some((_, version)), Some(wanted)) => version.to_string() == wanted,
                _ => false,
            };
            matches.then(|| {
                self.writes += 1;
                let mut written = record(identity, claim.epoch, &self.writes.to_string());
                written.acquire_time = claim.epoch.to_string();
                self.lease = Some((written.clone(), self.writes));
                (written, self.writes.to_string())
            })
        }
    }

    fn simulate(random: &mut Random, seed: u64) {
        let mut server = Server::default();
        let names = ["a", "b", "c"];
        let mut contenders: Vec<Election> = names.iter().map(|name| contender(name)).collect();
        let mut wakes = [0_u64; 3];
        let (mut last_epoch, mut terms) = (0, 0);
        for now in (0..240_000_u64).step_by(100) {
            if seed % 2 == 1 && now % 60_000 == 1_000 * (1 + seed % 50) {
                server.lease = None;
            }
            for index in 0..3 {
                if now < wakes[index] {
                    continue;
                }
                wakes[index] = now + if random.below(40) == 0 { 20_000 } else { 1_500 + random.below(1_000) };
                let me = &mut contenders[index];
                me.leads(now);
                let mut action = me.next();
                if action == Action::Read {
                    let read = server.lease.clone().map(|(record, version)| (record, version.to_string()));
                    action = me.on_read(read, now);
                }
                let (precondition, claim) = match action {
                    Action::Create(claim) => (None, claim),
                    Action::Replace { resource_version, claim } => (Some(resource_version), claim),
                    Action::Wait { .. } | Action::Read => continue,
                };
                let lost = random.below(10) == 0;
                match server.write(precondition.as_deref(), names[index], &claim) {
                    Some((record, version)) if !lost => {
                        if claim.begins {
                            let grows = claim.epoch > last_epoch;
                            assert!(grows || seed % 2 == 1, "seed {seed}: epoch {} after {last_epoch}", claim.epoch);
                            last_epoch = claim.epoch;
                            terms += 1;
                        }
                        me.on_written(&claim, record, version, now);
                    }
                    _ => me.on_write_failed(),
                }
            }
            let leaders = contenders.iter_mut().filter_map(|c| c.leads(now).then_some(())).count();
            assert!(leaders <= 1, "seed {seed}: {leaders} leaders at {now}");
        }
        assert!(terms >= 1, "seed {seed}: nobody ever led");
    }

    #[test]
    fn timing_that_cannot_work_is_refused_with_a_sentence() {
        let bad = LeaseTiming { renew_deadline: Duration::from_secs(20), ..LeaseTiming::default() };
        assert_eq!(bad.validate(), Err("renew deadline 20s must be shorter than the lease duration 15s".to_owned()));
        let bad = LeaseTiming { retry_period: Duration::from_secs(9), ..LeaseTiming::default() };
        assert!(bad.validate().is_err());
        let bad = LeaseTiming { duration: Duration::from_millis(15_500), ..LeaseTiming::default() };
        assert!(bad.validate().is_err());
        assert_eq!(LeaseTiming::default().validate(), Ok(()));
    }
}
