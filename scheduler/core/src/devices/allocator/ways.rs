//! What each request asks for, looked at before any device is taken: its ways, and what is wrong with claims and classes.

use super::{Ended, MAX_RESULTS, Search, Spot, Way};
use crate::devices::constraints::Watch;
use crate::devices::facts::{Ask, ClaimInfo, Constraint, Count, RequestKind};
use smol_str::SmolStr;

impl<'a> Search<'a> {
    /// Looks at every request before any device is taken.
    pub(super) fn prepare(&mut self) -> Result<(), Ended> {
        for (at, claim) in self.claims.iter().enumerate() {
            let mut least = 0;
            let mut all = Vec::with_capacity(claim.requests.len());
            for request in &claim.requests {
                let mut ways = Vec::new();
                match &request.kind {
                    RequestKind::Exactly(ask) => ways.push(self.way(claim, &request.name, None, ask)?),
                    RequestKind::FirstAvailable(alternatives) => {
                        for (name, ask) in alternatives {
                            ways.push(self.way(claim, &request.name, Some(name), ask)?);
                        }
                    }
                    RequestKind::Unknown => {
                        return Err(Ended::Error(format!(
                            "claim {}, request {}: unknown request type",
                            claim.key(),
                            request.name
                        )));
                    }
                }
                let fewest = ways.iter().map(|way| way.count).min().unwrap_or(0);
                if fewest > MAX_RESULTS - least {
                    return Err(Ended::Error(format!(
                        "claim {}, request {}: adding {fewest} devices exceeds the claim limit of {MAX_RESULTS}, with {least} already accounted for",
                        claim.key(),
                        request.name
                    )));
                }
                least += fewest;
                all.push(ways);
            }
            self.ways.push(all);
            let watches: Option<Vec<Watch<'a>>> = claim.constraints.iter().map(Watch::new).collect();
            let Some(watches) = watches else {
                let number = claim.constraints.iter().position(|c| *c == Constraint::Unknown).unwrap_or(0);
                return Err(Ended::Error(format!(
                    "claim {}, constraint #{number}: empty constraint (unsupported constraint type?)",
                    self.claims[at].key()
                )));
            };
            self.watches.push(watches);
        }
        Ok(())
    }

    fn way(
        &self,
        claim: &'a ClaimInfo,
        request: &'a SmolStr,
        alternative: Option<&'a SmolStr>,
        ask: &'a Ask,
    ) -> Result<Way<'a>, Ended> {
        let name = alternative.unwrap_or(request);
        let wrong = |what: String| Ended::Error(format!("claim {}, request {name}: {what}", claim.key()));
        if ask.derived {
            return Err(wrong("cannot handle request with derived attributes, the feature is disabled".into()));
        }
        if let Some(number) = ask.selectors.iter().position(Option::is_none) {
            let what = format!("selector #{number}: CEL expression empty (unsupported selector type?)");
            return Err(Ended::Error(format!("claim {}, request {name}, {what}", claim.key())));
        }
        let Some(class) = self.devices.class(&ask.class) else {
            return Err(wrong(format!("could not retrieve device class {}: it does not exist", ask.class)));
        };
        let mut way = Way { request, alternative, ask, class, count: 0, all: Vec::new() };
        match &ask.count {
            Count::Exactly(count) => way.count = usize::try_from(*count).unwrap_or(0),
            Count::Unknown(mode) => return Err(wrong(format!("unsupported count mode {mode}"))),
            Count::All => {
                way.all = self.all(claim, &way).map_err(|error| match error {
                    Ended::Error(what) if what.starts_with("asks") => wrong(what),
                    other => other,
                })?;
                way.count = way.all.len();
            }
        }
        Ok(way)
    }

    /// All devices that a request is about.
    fn all(&self, claim: &ClaimInfo, way: &Way<'a>) -> Result<Vec<Spot>, Ended> {
        let mut all = Vec::new();
        for (at, pool) in self.pools.iter().enumerate() {
            let state = match (pool.incomplete, pool.invalid) {
                (true, _) => "being updated",
                (_, true) => "invalid",
                _ => "",
            };
            if !state.is_empty() {
                let what = format!(
                    "asks for all devices, but resource pool {}/{} is currently {state}",
                    pool.driver, pool.name
                );
                return Err(Ended::Error(what));
            }
            for (slice, of) in pool.slices.iter().enumerate() {
                for device in 0..of.info.devices.len() {
                    let spot = [at, slice, device];
                    if self.is_selected(claim, way, spot)? && self.has_capacity(claim, way, spot, true)? {
                        all.push(spot);
                    }
                }
            }
        }
        Ok(all)
    }
}
