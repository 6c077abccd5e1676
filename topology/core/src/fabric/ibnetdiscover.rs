//! The dump of `ibnetdiscover`: switches and channel adapters of an InfiniBand fabric, each with its links.
//!
//! In a rail-optimised fabric a leaf switch serves one rail of one rack: a host stands on as many leaves as it has rails. Leaves
//! that at least two hosts share are of one rack. A switch that no host hangs on is a spine. Adapters are told apart by their node
//! description, `<host> <adapter>`; those that carry the maker's default text belong to a host that nobody can name from here.

use super::Fabric;
use smol_str::{SmolStr, format_smolstr};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Descriptions of adapters that name no host.
const NAMELESS: [&str; 5] = ["MT", "Mellanox", "localhost", "ubuntu", "Quantum"];
/// Adapters inside switches, which reduce on the way.
const AGGREGATION: &str = "Aggregation Node";

/// Why a dump cannot be read.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum DiscoverError {
    /// No switch at all.
    #[error("no line begins with Switch: this is not the output of ibnetdiscover")]
    NoSwitch,
    /// A line that cannot be read.
    #[error("line {0}: {1:?} is neither a switch, an adapter nor a link")]
    BadLine(usize, String),
}

/// A switch.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Switch {
    /// Its description without what the firmware adds.
    pub name: SmolStr,
    /// Links to other switches.
    pub uplinks: usize,
    /// Adapters of hosts, with and without a name.
    pub adapters: usize,
}

/// A fabric.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Discovered {
    /// Switches by GUID.
    pub switches: BTreeMap<SmolStr, Switch>,
    /// Adapters of each host by GUID, with the switch that each hangs on.
    pub hosts: BTreeMap<SmolStr, BTreeMap<SmolStr, SmolStr>>,
    /// Adapters that name no host.
    pub nameless: usize,
}

/// Reads a dump. `O(lines · log)`.
///
/// # Errors
/// When it is no dump, with the line.
pub fn read(text: &str) -> Result<Discovered, DiscoverError> {
    let mut found = Discovered::default();
    let mut section = Section::None;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') || line.split_whitespace().next().is_some_and(is_setting) {
            continue;
        }
        let bad = || DiscoverError::BadLine(at + 1, line.chars().take(80).collect());
        if let Some(rest) = line.strip_prefix("Switch") {
            let guid = quoted(rest).ok_or_else(bad)?;
            let name = described(rest).ok_or_else(bad)?;
            let switch = found.switches.entry(guid.into()).or_default();
            switch.name = name.split([';', ':']).nth(usize::from(name.contains(';'))).unwrap_or(name).into();
            section = Section::Switch(guid.into());
        } else if let Some(rest) = line.strip_prefix("Ca") {
            let guid = quoted(rest).ok_or_else(bad)?;
            section = Section::Adapter(guid.into(), host_of(described(rest).ok_or_else(bad)?));
        } else if line.starts_with('[') {
            let peer = quoted(line).ok_or_else(bad)?;
            found.link(&section, peer, line);
        } else if !line.starts_with("Rt") {
            return Err(bad());
        }
    }
    if found.switches.is_empty() { Err(DiscoverError::NoSwitch) } else { Ok(found) }
}

enum Section {
    None,
    Switch(SmolStr),
    Adapter(SmolStr, Described),
}

enum Described {
    Host(SmolStr),
    Nameless,
    Aggregation,
}

impl Discovered {
    fn link(&mut self, section: &Section, peer: &str, line: &str) {
        match section {
            Section::None => {}
            Section::Switch(guid) => {
                let Some(switch) = self.switches.get_mut(guid) else { return };
                switch.uplinks += usize::from(peer.starts_with("S-"));
                switch.adapters += usize::from(peer.starts_with("H-") && !line.contains(AGGREGATION));
            }
            Section::Adapter(guid, Described::Host(host)) => {
                self.hosts.entry(host.clone()).or_default().insert(guid.clone(), peer.into());
            }
            Section::Adapter(_, Described::Nameless) => self.nameless += 1,
            Section::Adapter(_, Described::Aggregation) => {}
        }
    }

    /// Switches that hosts hang on.
    pub fn leaves(&self) -> impl Iterator<Item = &Switch> {
        self.switches.values().filter(|switch| switch.adapters > 0)
    }

    /// Switches that no host hangs on.
    pub fn spines(&self) -> impl Iterator<Item = &Switch> {
        self.switches.values().filter(|switch| switch.adapters == 0)
    }

    /// The hosts by rack. A host whose leaves are of no rack, or of two, stands in none.
    #[must_use]
    pub fn fabric(&self) -> Fabric {
        let racks = self.racks();
        let mut fabric = Fabric { levels: vec!["rack".into()], ..Fabric::default() };
        for (host, adapters) in &self.hosts {
            let of: BTreeSet<&SmolStr> = adapters.values().filter_map(|switch| racks.get(switch)).collect();
            let rack = of.first().filter(|_| of.len() == 1).map(|rack| (*rack).clone());
            if rack.is_none() {
                fabric.left_out.push(format!("host {host} stands on leaves of {} racks", of.len()));
            }
            fabric.hosts.insert(host.clone(), vec![rack]);
        }
        if self.nameless > 0 {
            fabric.left_out.push(format!("{} adapters carry no host's name in their node description", self.nameless));
        }
        fabric
    }

    /// Rack of each leaf, named by the first of its leaves: leaves that two hosts share are of one.
    fn racks(&self) -> BTreeMap<SmolStr, SmolStr> {
        let mut shared: BTreeMap<(&SmolStr, &SmolStr), usize> = BTreeMap::new();
        for adapters in self.hosts.values() {
            let leaves: BTreeSet<&SmolStr> = adapters.values().collect();
            for (at, one) in leaves.iter().enumerate() {
                leaves.iter().skip(at + 1).for_each(|other| *shared.entry((one, other)).or_default() += 1);
            }
        }
        let used: BTreeSet<&SmolStr> = self.hosts.values().flat_map(BTreeMap::values).collect();
        let mut rack: BTreeMap<SmolStr, SmolStr> = used.iter().map(|leaf| ((*leaf).clone(), (*leaf).clone())).collect();
        for ((one, other), _) in shared.iter().filter(|(_, hosts)| **hosts >= 2) {
            let (Some(a), Some(b)) = (rack.get(*one).cloned(), rack.get(*other).cloned()) else { continue };
            let (kept, gone) = (a.clone().min(b.clone()), a.max(b));
            rack.values_mut().filter(|rack| **rack == gone).for_each(|rack| *rack = kept.clone());
        }
        let name = |guid: &SmolStr| self.switches.get(guid).map_or_else(|| guid.clone(), |switch| switch.name.clone());
        rack.into_iter().map(|(leaf, first)| (leaf, format_smolstr!("rack-of-{}", name(&first)))).collect()
    }
}

/// `vendid=…` and the like before a section.
fn is_setting(word: &str) -> bool {
    word.split_once('=').is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase()))
}

/// The first quoted text.
fn quoted(text: &str) -> Option<&str> {
    text.split('"').nth(1)
}

/// The quoted text after the `#`.
fn described(text: &str) -> Option<&str> {
    text.split_once('#')?.1.split('"').nth(1)
}

fn host_of(description: &str) -> Described {
    if description.contains(AGGREGATION) {
        return Described::Aggregation;
    }
    match description.split_whitespace().next() {
        Some(host) if !NAMELESS.iter().any(|word| host.starts_with(word)) => Described::Host(host.into()),
        _ => Described::Nameless,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two racks of two hosts with two rails each, a manager that hangs on a leaf of both, a spine, and what has no name.
    fn dump() -> String {
        let mut text = String::from("#\n# Topology file\n\nvendid=0x2c9\n");
        let leaf = |n: u32| format!("S-{n}");
        let mut adapters = String::new();
        for (rack, hosts) in [(0, ["a", "b"]), (1, ["c", "d"])] {
            for rail in 0..2 {
                let switch = leaf(rack * 2 + rail);
                text.push_str(&format!("switchguid=0x1({switch})\nSwitch\t65 \"{switch}\"\t\t# \"MF0;LEAF-{rack}-{rail}:MQM9701/U1\" enhanced\n"));
                for (port, host) in hosts.iter().enumerate() {
                    text.push_str(&format!(
                        "[{port}]\t\"H-{host}{rail}\"[1](x) \t\t# \"{host} mlx5_{rail}\" lid 1 4xNDR\n"
                    ));
                    adapters.push_str(&format!("caguid=0x1\nCa\t1 \"H-{host}{rail}\"\t\t# \"{host} mlx5_{rail}\"\n[1](x) \t\"{switch}\"[{port}]\t\t# lid 1\n\n"));
                }
                text.push_str("[64]\t\"S-spine\"[1]\t\t# \"MF0;SPINE:MQM9701/U1\" lid 9 4xNDR\n");
                text.push_str("[65]\t\"H-agg\"[1](x) \t\t# \"Mellanox Technologies Aggregation Node\" lid 2 4xNDR\n\n");
            }
        }
        text.push_str("Switch\t65 \"S-spine\"\t\t# \"MF0;SPINE:MQM9701/U1\" enhanced\n[1]\t\"S-0\"[64]\t\t# \"x\"\n");
        for switch in ["S-0", "S-2"] {
            adapters.push_str(&format!(
                "Ca\t1 \"H-m{switch}\"\t\t# \"manager mlx5_0\"\n[1](x) \t\"{switch}\"[9]\t\t# lid 1\n"
            ));
        }
        adapters.push_str(
            "Ca\t1 \"H-u\"\t\t# \"MT4129 ConnectX7   Mellanox Technologies\"\n[1](x) \t\"S-0\"[9]\t\t# lid 1\n",
        );
        text + &adapters
    }

    #[test]
    fn leaves_that_hosts_share_are_a_rack() {
        let found = read(&dump()).unwrap();
        assert_eq!((found.leaves().count(), found.spines().count(), found.nameless), (4, 1, 1));
        assert_eq!(found.switches["S-0"], Switch { name: "LEAF-0-0".into(), uplinks: 1, adapters: 2 });
        let fabric = found.fabric();
        let rack = |host: &str| fabric.hosts[host][0].as_deref();
        assert_eq!([rack("a"), rack("b")], [Some("rack-of-LEAF-0-0"); 2]);
        assert_eq!([rack("c"), rack("d")], [Some("rack-of-LEAF-1-0"); 2]);
        assert_eq!(rack("manager"), None);
        let told =
            ["host manager stands on leaves of 2 racks", "1 adapters carry no host's name in their node description"];
        assert_eq!(fabric.left_out, told);
    }

    #[test]
    fn another_text_is_refused_with_its_line() {
        let refused = |text: &str| read(text).unwrap_err().to_string();
        assert_eq!(refused(""), "no line begins with Switch: this is not the output of ibnetdiscover");
        assert_eq!(refused("# x\nhello\n"), "line 2: \"hello\" is neither a switch, an adapter nor a link");
        assert!(refused("Switch 65\n").starts_with("line 1"));
    }
}
