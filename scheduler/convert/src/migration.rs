//! Disks of in-tree plugins as the CSI volumes that they are since drivers took over, with the names and topology that
//! Kubernetes' csi-translation-lib gives them. What it cannot translate counts as no CSI volume and keeps its node affinity.

use super::types::storage::{AzureDisk, PersistentVolume, Volume};
use flowforge_scheduler_core::labels::Labels;
use flowforge_scheduler_core::model::{NodeOperator, NodeRequirement, NodeSelectorTerm};
use flowforge_scheduler_core::volumes::{CsiHandle, InTreeVolume};
use smol_str::{SmolStr, format_smolstr};
use std::collections::BTreeSet;

const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";
const BETA_ZONE: &str = "failure-domain.beta.kubernetes.io/zone";
const BETA_REGION: &str = "failure-domain.beta.kubernetes.io/region";
/// Between the zones of a label.
const DELIMITER: &str = "__";

/// An in-tree plugin and the driver that took over.
struct Plugin {
    name: &'static str,
    driver: &'static str,
    /// The driver's zone key, where zones are translated.
    zone: Option<&'static str>,
}

const GCE: Plugin =
    Plugin { name: "kubernetes.io/gce-pd", driver: "pd.csi.storage.gke.io", zone: Some("topology.gke.io/zone") };
const EBS: Plugin =
    Plugin { name: "kubernetes.io/aws-ebs", driver: "ebs.csi.aws.com", zone: Some("topology.ebs.csi.aws.com/zone") };
const CINDER: Plugin = Plugin {
    name: "kubernetes.io/cinder",
    driver: "cinder.csi.openstack.org",
    zone: Some("topology.cinder.csi.openstack.org/zone"),
};
const AZURE: Plugin = Plugin { name: "kubernetes.io/azure-disk", driver: "disk.csi.azure.com", zone: None };
const PORTWORX: Plugin = Plugin { name: "kubernetes.io/portworx-volume", driver: "pxd.portworx.com", zone: None };

/// The CSI volume that a pod's own disk is; None where it is none.
pub(super) fn inline(volume: &Volume) -> Option<CsiHandle> {
    let (plugin, handle) = if let Some(disk) = &volume.gce_persistent_disk {
        (GCE, Some(gce_handle(None, &disk.pd_name)))
    } else if let Some(disk) = &volume.aws_elastic_block_store {
        (EBS, ebs_handle(&disk.volume_id))
    } else if let Some(disk) = &volume.azure_disk {
        (AZURE, azure_handle(disk))
    } else if let Some(disk) = &volume.cinder {
        (CINDER, Some(disk.volume_id.clone()))
    } else {
        (PORTWORX, Some(volume.portworx_volume.as_ref()?.volume_id.clone()))
    };
    Some(CsiHandle { driver: plugin.driver.into(), handle: handle? })
}

/// A PersistentVolume of an in-tree plugin; None for any other.
pub(super) fn persistent(volume: &PersistentVolume, affinity: Option<&[NodeSelectorTerm]>) -> Option<InTreeVolume> {
    let (spec, labels) = (&volume.spec, &volume.metadata.labels);
    let (plugin, handle) = if let Some(disk) = &spec.gce_persistent_disk {
        (GCE, gce_zones(labels).map(|zones| gce_handle(zones, &disk.pd_name)))
    } else if let Some(disk) = &spec.aws_elastic_block_store {
        (EBS, ebs_handle(&disk.volume_id))
    } else if let Some(disk) = &spec.azure_disk {
        (AZURE, azure_handle(disk))
    } else if let Some(disk) = &spec.cinder {
        (CINDER, Some(disk.volume_id.clone()))
    } else {
        (PORTWORX, Some(spec.portworx_volume.as_ref()?.volume_id.clone()))
    };
    let affinity = match plugin.zone.filter(|_| handle.is_some()) {
        Some(zone) => translated(affinity, labels, zone),
        None => affinity.map(<[_]>::to_vec),
    };
    let csi = handle.map(|handle| CsiHandle { driver: plugin.driver.into(), handle });
    Some(InTreeVolume { plugin: plugin.name.into(), csi, affinity })
}

/// `zones/ZONE` or `regions/REGION` of a GCE disk.
type Place = (&'static str, SmolStr);

fn gce_handle(place: Option<Place>, disk: &str) -> SmolStr {
    let (kind, place) = place.unwrap_or(("zones", SmolStr::new_static("UNSPECIFIED")));
    format_smolstr!("projects/UNSPECIFIED/{kind}/{place}/disks/{disk}")
}

/// Where a GCE disk is: unspecified, a zone, or for several zones their region; None where that is not one region.
fn gce_zones(labels: &Labels) -> Option<Option<Place>> {
    let label = labels.get(BETA_ZONE).filter(|zone| !zone.is_empty()).or_else(|| labels.get(ZONE));
    let zones: Vec<&str> = label.map(|label| label.split(DELIMITER).collect()).unwrap_or_default();
    match zones.as_slice() {
        [] | [""] => Some(None),
        [zone] => Some(Some(("zones", SmolStr::from(*zone)))),
        zones => {
            let region = |zone: &&str| match zone.split('-').collect::<Vec<_>>().as_slice() {
                [locale, region, _] => Some(format_smolstr!("{locale}-{region}")),
                _ => None,
            };
            let mut regions = zones.iter().map(region).collect::<Option<BTreeSet<SmolStr>>>()?;
            let region = regions.pop_first()?;
            regions.is_empty().then_some(Some(("regions", region)))
        }
    }
}

/// An EBS volume ID, or what `aws://ZONE/ID` says it is.
fn ebs_handle(id: &str) -> Option<SmolStr> {
    let Some(rest) = id.strip_prefix("aws://") else { return Some(id.into()) };
    let path = rest.split_once('/').map_or("", |(_, path)| path).trim_matches('/');
    (path.starts_with("vol-") && !path.contains('/')).then(|| path.into())
}

/// Only managed disks are CSI volumes.
fn azure_handle(disk: &AzureDisk) -> Option<SmolStr> {
    let managed = disk.kind.as_ref().is_none_or(|kind| kind.eq_ignore_ascii_case("Managed"));
    managed.then(|| disk.disk_uri.clone())
}

/// Node affinity with the driver's zone key instead of Kubernetes', or else with the zones of the volume's label; a beta
/// region key becomes the one that replaced it.
fn translated(
    affinity: Option<&[NodeSelectorTerm]>,
    labels: &Labels,
    driver_zone: &str,
) -> Option<Vec<NodeSelectorTerm>> {
    let mut terms = affinity.map(<[_]>::to_vec);
    let (zone, region) = topology_keys(affinity.unwrap_or_default(), labels);
    if values(terms.as_deref().unwrap_or_default(), zone).next().is_some() {
        rename(terms.as_deref_mut().unwrap_or_default(), zone, driver_zone);
    } else if let Some(label) = labels.get(zone) {
        let named: BTreeSet<SmolStr> =
            label.split(DELIMITER).map(str::trim).filter(|zone| !zone.is_empty()).map(SmolStr::from).collect();
        if !named.is_empty() {
            let terms = terms.get_or_insert_default();
            if terms.is_empty() {
                terms.push(NodeSelectorTerm::default());
            }
            let required = NodeRequirement {
                key: driver_zone.into(),
                operator: NodeOperator::In,
                values: named.into_iter().collect(),
            };
            terms.iter_mut().for_each(|term| term.match_expressions.push(required.clone()));
        }
    }
    if region == BETA_REGION && values(terms.as_deref().unwrap_or_default(), region).next().is_some() {
        rename(terms.as_deref_mut().unwrap_or_default(), region, REGION);
    }
    terms
}

/// The zone and region keys that a volume uses: those of its affinity before those of its labels, the new before the beta.
fn topology_keys(terms: &[NodeSelectorTerm], labels: &Labels) -> (&'static str, &'static str) {
    let uses = |key: &str| terms.iter().flat_map(|term| &term.match_expressions).any(|required| required.key == key);
    let is_beta = if uses(ZONE) || uses(BETA_ZONE) {
        !uses(ZONE)
    } else {
        !labels.contains_key(ZONE) && labels.contains_key(BETA_ZONE)
    };
    if is_beta { (BETA_ZONE, BETA_REGION) } else { (ZONE, REGION) }
}

fn values<'a>(terms: &'a [NodeSelectorTerm], key: &'a str) -> impl Iterator<Item = &'a SmolStr> {
    let required = terms.iter().flat_map(|term| &term.match_expressions).filter(move |required| required.key == key);
    required.flat_map(|required| &required.values)
}

fn rename(terms: &mut [NodeSelectorTerm], from: &str, to: &str) {
    let all = terms.iter_mut().flat_map(|term| &mut term.match_expressions);
    all.filter(|required| required.key == from).for_each(|required| required.key = to.into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn volume(labels: &Value, spec: &Value) -> PersistentVolume {
        serde_json::from_value(json!({"metadata": {"name": "v", "labels": labels}, "spec": spec})).expect("a volume")
    }

    fn handle(labels: &Value, spec: &Value) -> Option<String> {
        persistent(&volume(labels, spec), None)?.csi.map(|csi| csi.handle.to_string())
    }

    #[test]
    fn a_gce_disk_is_named_with_its_place() {
        let of = |labels: Value| handle(&labels, &json!({"gcePersistentDisk": {"pdName": "d"}}));
        let name = |place: &str| Some(format!("projects/UNSPECIFIED/{place}/disks/d"));
        assert_eq!(of(json!({})), name("zones/UNSPECIFIED"));
        assert_eq!(of(json!({ZONE: "us-east1-a"})), name("zones/us-east1-a"));
        assert_eq!(of(json!({ZONE: "us-east1-a__us-east1-b"})), name("regions/us-east1"));
        assert_eq!(of(json!({ZONE: "us-east1-a__us-west1-b"})), None);
    }

    #[test]
    fn an_ebs_volume_is_named_with_or_without_its_zone() {
        let of = |id: &str| ebs_handle(id).map(|id| id.to_string());
        assert_eq!(of("vol-1"), Some("vol-1".to_owned()));
        assert_eq!(of("aws://us-east-1a/vol-1"), Some("vol-1".to_owned()));
        assert_eq!(of("aws://us-east-1a/other"), None);
    }

    #[test]
    fn only_managed_azure_disks_are_csi_volumes() {
        let of = |kind: Value| handle(&json!({}), &json!({"azureDisk": {"diskURI": "uri", "kind": kind}}));
        assert_eq!([of(Value::Null), of(json!("Managed"))], [Some("uri".to_owned()), Some("uri".to_owned())]);
        assert_eq!(of(json!("Shared")), None);
    }

    #[test]
    fn zones_become_the_drivers_topology() {
        let required = |key: &str| NodeSelectorTerm {
            match_expressions: vec![NodeRequirement {
                key: key.into(),
                operator: NodeOperator::In,
                values: vec!["a".into()],
            }],
            match_fields: Vec::new(),
        };
        let ebs = |labels: Value| volume(&labels, &json!({"awsElasticBlockStore": {"volumeID": "vol-1"}}));
        let keys = |labels: Value, terms: Option<&[NodeSelectorTerm]>| {
            let terms = persistent(&ebs(labels), terms).and_then(|disk| disk.affinity).unwrap_or_default();
            terms.iter().flat_map(|t| &t.match_expressions).map(|r| r.key.to_string()).collect::<Vec<_>>()
        };
        let driver = "topology.ebs.csi.aws.com/zone";
        assert_eq!(keys(json!({}), Some(&[required(ZONE)])), [driver]);
        assert_eq!(keys(json!({ZONE: "a__b"}), None), [driver]);
        assert_eq!(keys(json!({BETA_ZONE: "a"}), Some(&[required("pool")])), ["pool", driver]);
        assert_eq!(keys(json!({}), Some(&[required(BETA_ZONE), required(BETA_REGION)])), [driver, REGION]);
        assert_eq!(keys(json!({}), None), Vec::<String>::new());
    }
}
