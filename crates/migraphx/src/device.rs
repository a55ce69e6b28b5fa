//! The AMD GPUs of this machine, as the kernel's driver lists them; no library is needed for that.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Where the kernel's compute driver says what it drives.
const TOPOLOGY: &str = "/sys/class/kfd/kfd/topology/nodes";
const DRIVER: &str = "/sys/module/amdgpu/version";

/// What GPU programs are compiled for here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// Architectures of all GPUs with what the driver says of their features, such as `gfx942`.
    pub(crate) architecture: String,
    /// The kernel driver's version.
    pub(crate) driver: Option<String>,
}

impl Device {
    /// The GPUs of this machine; `None` where there are none.
    pub(crate) fn here() -> Option<Self> {
        Self::listed(Path::new(TOPOLOGY), Path::new(DRIVER))
    }

    fn listed(topology: &Path, driver: &Path) -> Option<Self> {
        let nodes = fs::read_dir(topology).ok()?.filter_map(Result::ok);
        let architectures: BTreeSet<String> = nodes
            .filter_map(|node| fs::read_to_string(node.path().join("properties")).ok())
            .filter_map(|properties| architecture(&properties))
            .collect();
        if architectures.is_empty() {
            return None;
        }
        let driver = fs::read_to_string(driver).ok().map(|version| version.trim().to_owned());
        let architecture = architectures.into_iter().collect::<Vec<_>>().join(" ");
        Some(Self { architecture, driver })
    }
}

/// `gfx_target_version 90402` is gfx942: two digits each for minor and stepping, the latter hexadecimal.
/// Processors are listed too, with version 0. `capability` has the bits for xnack and sramecc.
fn architecture(properties: &str) -> Option<String> {
    let value = |name: &str| {
        let line =
            properties.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse::<u64>().ok()
    };
    let version = value("gfx_target_version").filter(|&version| version > 0)?;
    let (major, minor, stepping) = (version / 10_000, version / 100 % 100, version % 100);
    let features = value("capability").map(|bits| format!(":capability={bits:#x}"));
    // Chips of one architecture come with different numbers of units, and kernels are tuned for theirs.
    let units = value("simd_count").map(|n| format!(":simd={n}"));
    let more = [features, units].into_iter().flatten().collect::<String>();
    Some(format!("gfx{major}{minor:x}{stepping:x}{more}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_no_gpus_and_each_architecture_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let node = |name: &str, properties: &str| {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("properties"), properties).unwrap();
        };
        let driver = folder.path().join("version");
        assert_eq!(Device::listed(folder.path(), &driver), None);
        node("0", "cpu_cores_count 64\ngfx_target_version 0\n");
        assert_eq!(Device::listed(folder.path(), &driver), None);
        node("1", "simd_count 456\ngfx_target_version 90402\n");
        node("2", "simd_count 456\ngfx_target_version 90402\n");
        node("3", "gfx_target_version 90010\ncapability 16\n");
        let found = Device::listed(folder.path(), &driver).unwrap();
        assert_eq!(found.architecture, "gfx90a:capability=0x10 gfx942:simd=456");
        assert_eq!(found.driver, None);
    }
}
