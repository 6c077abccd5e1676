//! Nodes of machines as they are sold, for the tests of what is chosen on them.

use super::*;
use smol_str::SmolStr;

pub(super) const NVIDIA: &str = "gpu.nvidia.com";
pub(super) const NICS: &str = "dra.net";
pub(super) const V100: &str = "Tesla V100-SXM2-32GB";
pub(super) const A100_PCIE: &str = "NVIDIA A100-PCIE-40GB";
pub(super) const L40S: &str = "NVIDIA L40S";
pub(super) const H100: &str = "NVIDIA H100 80GB HBM3";

fn text(value: &str) -> Attribute {
    Attribute::String(value.into())
}

/// A device on a NUMA node and a PCIe root.
pub(super) fn device(name: &str, numa: i64, root: &str) -> DeviceInfo {
    let attributes =
        [("resource.kubernetes.io/numaNode", Attribute::Int(numa)), ("resource.kubernetes.io/pcieRoot", text(root))];
    DeviceInfo {
        name: name.into(),
        attributes: attributes.into_iter().map(|(key, value)| (key.into(), value)).collect(),
        ..DeviceInfo::default()
    }
}

/// A GPU, each on a root of its own.
pub(super) fn gpu(minor: usize, product: &str, numa: i64) -> DeviceInfo {
    let mut gpu = device(&format!("gpu-{minor}"), numa, &format!("pci0000:{minor:02x}"));
    for (key, value) in [("type", "gpu"), ("uuid", &format!("GPU-{minor}")), ("productName", product)] {
        gpu.attributes.insert(key.into(), text(value));
    }
    gpu
}

/// So many GPUs, the first half of them on NUMA node 0.
pub(super) fn board(product: &str, count: usize) -> Vec<DeviceInfo> {
    (0..count).map(|minor| gpu(minor, product, i64::from(minor >= count.div_ceil(2)))).collect()
}

/// A device with one of its attributes.
pub(super) fn with(mut device: DeviceInfo, key: &str, value: &str) -> DeviceInfo {
    device.attributes.insert(key.into(), text(value));
    device
}

/// All devices of a driver on a node.
pub(super) fn slice(driver: &str, node: &str, devices: Vec<DeviceInfo>) -> SliceInfo {
    SliceInfo {
        name: format!("{driver}-{node}").into(),
        driver: driver.into(),
        pool: node.into(),
        slices_in_pool: 1,
        reach: Reach::Node(node.into()),
        devices,
        ..SliceInfo::default()
    }
}

/// The class of a driver's devices, by the driver's name.
pub(super) fn class(driver: &str) -> ClassInfo {
    let selectors = vec![Some(format!("device.driver == \"{driver}\"").into())];
    ClassInfo { name: driver.into(), selectors, ..ClassInfo::default() }
}

pub(super) fn ask(driver: &str, count: i64) -> Ask {
    Ask {
        class: driver.into(),
        selectors: Vec::new(),
        count: Count::Exactly(count),
        admin: false,
        tolerations: Vec::new(),
        written_tolerations: Vec::new(),
        capacity: Amounts::new(),
        derived: false,
    }
}

/// A claim of one request for each of these.
pub(super) fn claim(name: &str, asks: &[(&str, i64)]) -> ClaimInfo {
    let request = |(at, (driver, count)): (usize, &(&str, i64))| Request {
        name: format!("r{at}").into(),
        kind: RequestKind::Exactly(ask(driver, *count)),
    };
    ClaimInfo {
        namespace: "ns".into(),
        name: name.into(),
        uid: format!("claim-{name}").into(),
        requests: asks.iter().enumerate().map(request).collect(),
        ..ClaimInfo::default()
    }
}

/// A claim that somebody has: these devices of a node.
pub(super) fn held(node: &str, driver: &str, devices: &[&str]) -> ClaimInfo {
    let result = |name: &&str| AllocatedDevice {
        request: "r0".into(),
        id: [driver.into(), node.into(), SmolStr::from(*name)],
        ..AllocatedDevice::default()
    };
    let allocation = Allocation { results: devices.iter().map(result).collect(), ..Allocation::default() };
    let asks = i64::try_from(devices.len()).unwrap_or(0);
    ClaimInfo { allocation: Some(allocation), ..claim(&format!("held-{driver}"), &[(driver, asks)]) }
}
