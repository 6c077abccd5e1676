//! A table of hosts and the switches above each: CSV with a head line, the host first, then the switches from wide to narrow.
//!
//! That is the form of `topo.csv` of Alibaba's GPU cluster data set of 2023 (`ip,DSW,PSW,ASW`: core, aggregation, top of rack).
//! Switch names need be unique only below the switch above them.

use super::Fabric;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use thiserror::Error;

/// Why a table cannot be read.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ClosError {
    /// No head line, or one without a switch.
    #[error("line 1: a head line is wanted: the host's column, then at least one of switches")]
    NoHead,
    /// A line with another number of fields.
    #[error("line {line}: {found} fields; the head line has {wanted}")]
    Fields {
        /// Number of the line, from 1.
        line: usize,
        /// Its fields.
        found: usize,
        /// Those of the head line.
        wanted: usize,
    },
    /// A line without a host.
    #[error("line {0}: the host is empty")]
    NoHost(usize),
    /// A host twice.
    #[error("line {line}: host {host} stands in line {first} already")]
    Twice {
        /// The line.
        line: usize,
        /// The host.
        host: SmolStr,
        /// The first line.
        first: usize,
    },
}

/// Reads a table. An empty field means that the switch is not known. `O(lines · log hosts)`.
///
/// # Errors
/// With the line and what is wrong with it.
pub fn read(text: &str) -> Result<Fabric, ClosError> {
    let mut lines =
        text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())).filter(|(_, line)| !line.is_empty());
    let head: Vec<&str> = lines.next().map(|(_, line)| line.split(',').map(str::trim).collect()).unwrap_or_default();
    if head.len() < 2 || head.iter().any(|name| name.is_empty()) {
        return Err(ClosError::NoHead);
    }
    let mut fabric =
        Fabric { levels: head.iter().skip(1).map(|name| name.to_lowercase().into()).collect(), ..Fabric::default() };
    let mut first: BTreeMap<SmolStr, usize> = BTreeMap::new();
    for (line, text) in lines {
        let fields: Vec<&str> = text.split(',').map(str::trim).collect();
        if fields.len() != head.len() {
            return Err(ClosError::Fields { line, found: fields.len(), wanted: head.len() });
        }
        let host = SmolStr::from(fields[0]);
        if host.is_empty() {
            return Err(ClosError::NoHost(line));
        }
        if let Some(first) = first.insert(host.clone(), line) {
            return Err(ClosError::Twice { line, host, first });
        }
        let path = fields.iter().skip(1).map(|field| (!field.is_empty()).then(|| SmolStr::from(*field))).collect();
        fabric.hosts.insert(host, path);
    }
    Ok(fabric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::levels::LevelIndex;

    #[test]
    fn a_table_of_three_levels_is_read_and_names_count_below_their_switch() {
        let fabric = read("ip,DSW,PSW,ASW\na,G6,P10,S14\nb,G6,P12,S14\n\nc,G6,P10,\n").unwrap();
        assert_eq!(fabric.levels, ["dsw", "psw", "asw"]);
        let (tree, _) = fabric.tree().unwrap();
        assert_eq!([0, 1, 2].map(|level| tree.count_at(LevelIndex(level))), [1, 2, 2]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let refused = |text: &str| read(text).unwrap_err().to_string();
        assert!(refused("").starts_with("line 1: a head line"));
        assert!(refused("ip\n").starts_with("line 1: a head line"));
        assert_eq!(refused("ip,tor\na\n"), "line 2: 1 fields; the head line has 2");
        assert_eq!(refused("ip,tor\n,x\n"), "line 2: the host is empty");
        assert_eq!(refused("ip,tor\na,x\n\na,y\n"), "line 4: host a stands in line 2 already");
    }
}
