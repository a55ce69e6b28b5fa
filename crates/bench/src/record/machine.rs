//! What a suite runs on, as the system tells without any library.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Digits that are the same for the same host's name, and do not tell it.
    pub host: String,
    /// The system, with its version.
    pub system: String,
    /// The kernel's version.
    pub kernel: String,
    /// The processor's name.
    pub processor: String,
    /// Logical processors that this process may use.
    pub n_processors: usize,
    /// Main memory.
    pub memory_bytes: Option<u64>,
    /// Names of the GPUs.
    pub gpus: Vec<String>,
    /// Their driver, with its version.
    pub gpu_driver: Option<String>,
}

impl Machine {
    /// The one that this process runs on.
    #[must_use]
    pub fn this() -> Self {
        Self {
            host: host(),
            system: field("/etc/os-release", "PRETTY_NAME", '=').unwrap_or_else(unknown),
            kernel: text("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
            processor: field("/proc/cpuinfo", "model name", ':').unwrap_or_else(unknown),
            n_processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: field("/proc/meminfo", "MemTotal", ':')
                .and_then(|it| it.split(' ').next()?.parse::<u64>().ok())
                .map(|kib| kib << 10),
            gpus: [nvidia(), amd()].concat(),
            gpu_driver: driver(),
        }
    }

    /// The processor, how many, the memory and GPUs, on one line.
    #[must_use]
    pub fn in_short(&self) -> String {
        let mut words = vec![format!("{} x {}", self.n_processors, self.processor)];
        words.extend(
            self.memory_bytes.map(|it| format!("{:.0} GiB", it as f64 / (1u64 << 30) as f64)),
        );
        words.extend(self.gpus.iter().cloned());
        words.extend(self.gpu_driver.clone());
        words.push(self.system.clone());
        words.join(", ")
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn host() -> String {
    let name = text("/proc/sys/kernel/hostname").unwrap_or_default();
    blake3::hash(name.as_bytes()).to_hex()[..8].to_owned()
}

fn text(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The value of the first line `name<separator>value`, without quotes.
fn field(path: &str, name: &str, separator: char) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let pairs = text.lines().filter_map(|line| line.split_once(separator));
    let mut values = pairs.filter(|(key, _)| key.trim() == name).map(|(_, value)| value);
    Some(values.next()?.trim().trim_matches('"').to_owned())
}

/// What the NVIDIA driver's files call its devices.
fn nvidia() -> Vec<String> {
    let devices = entries("/proc/driver/nvidia/gpus");
    let model = |device: &String| field(&format!("{device}/information"), "Model", ':');
    devices.iter().filter_map(model).collect()
}

/// The architectures that the AMD driver's topology names, as `gfx` numbers.
fn amd() -> Vec<String> {
    let nodes = entries("/sys/class/kfd/kfd/topology/nodes");
    let version = |node: &String| -> Option<u32> {
        let properties = fs::read_to_string(format!("{node}/properties")).ok()?;
        properties.lines().find_map(|line| line.strip_prefix("gfx_target_version "))?.parse().ok()
    };
    // 90402 is version 9.4.2, which is gfx942: the last two digits are hexadecimal. Processors have 0.
    let name = |it: u32| format!("AMD gfx{}{:x}{:x}", it / 10000, it / 100 % 100, it % 100);
    nodes.iter().filter_map(version).filter(|it| *it > 0).map(name).collect()
}

fn driver() -> Option<String> {
    let nvidia = text("/sys/module/nvidia/version").map(|it| format!("NVIDIA driver {it}"));
    nvidia.or_else(|| text("/sys/module/amdgpu/version").map(|it| format!("amdgpu {it}")))
}

/// What lies in a folder, in order of names; nothing where there is none.
fn entries(folder: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(Path::new(folder)) else { return Vec::new() };
    let mut paths: Vec<String> =
        entries.flatten().map(|entry| entry.path().to_string_lossy().into_owned()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fields").to_string_lossy().into_owned();
        fs::write(&path, "NAME_LONG=no\nNAME=\"yes = no\"\nNAME=later\n").unwrap();
        assert_eq!(field(&path, "NAME", '=').as_deref(), Some("yes = no"));
        assert_eq!(field(&path, "NAM", '='), None);
        assert_eq!(field("/nowhere", "NAME", '='), None);
    }

    #[test]
    fn a_host_is_known_again_and_not_named() {
        let this = Machine::this();
        assert_eq!(this.host.len(), 8);
        assert_eq!(this, Machine::this());
        assert!(this.n_processors > 0);
    }
}
