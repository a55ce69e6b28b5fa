//! One GPU, as HIP shows it.

use std::env;
use std::fs;
use std::sync::{Arc, OnceLock};

use hip_sys::{Hip, HipError, PLATFORM_VARIABLE, Platform, SearchOptions};
use hipgraph::{Device, Runner, Settings, Stream, denial_of};
use shapeyard_core::backend::DeviceReport;

use super::memory::Memory;
use super::spread::Spread;
use crate::options::{DeviceOptions, Graphs};

const DRIVER: &str = "/sys/module/amdgpu/version";
/// Replays that are compared before a graph serves, where that was asked for.
const N_CHECKS: u32 = 3;

/// One GPU that programs run on.
#[derive(Debug)]
pub(crate) struct Gpu {
    device: Device,
    memory: Arc<Memory>,
    graphs: Graphs,
    spread: OnceLock<Result<Spread, String>>,
}

impl Gpu {
    /// The GPUs that were asked for.
    ///
    /// # Errors
    ///
    /// A sentence: there is no runtime, or no such device.
    pub(crate) fn open(options: &DeviceOptions) -> Result<Vec<Arc<Self>>, String> {
        let search = SearchOptions::default();
        // MIGraphX is AMD's; another platform has to be asked for by name.
        let is_chosen = env::var_os(PLATFORM_VARIABLE).is_some();
        let search = if is_chosen { search } else { search.on(Platform::Amd) };
        let hip = Hip::open(&search)
            .map_err(|error| format!("there is no AMD GPU that HIP could show: {error}"))?;
        let hip = Arc::new(hip);
        let mut gpus: Vec<Arc<Self>> = Vec::new();
        for &index in &options.devices {
            let known = gpus.iter().find(|gpu| usize::try_from(gpu.device.index()) == Ok(index));
            let gpu = match known {
                Some(gpu) => Arc::clone(gpu),
                None => Arc::new(Self::on(&hip, index, options)?),
            };
            gpus.push(gpu);
        }
        Ok(gpus)
    }

    fn on(hip: &Arc<Hip>, index: usize, options: &DeviceOptions) -> Result<Self, String> {
        let device = Device::new(Arc::clone(hip), index).map_err(|error| match error {
            error if error.fault.is_no_device() => {
                format!("there is no AMD GPU: HIP ({}) sees none ({error})", hip.path().display())
            }
            error => format!("device {index} cannot be used: {error}"),
        })?;
        let budget = options.memory.unwrap_or(device.properties().total_memory);
        let (memory, graphs) = (Memory::new(budget), options.graphs);
        Ok(Self { device, memory, graphs, spread: OnceLock::new() })
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The kernel that pads; without one the host does.
    pub(crate) fn spread(&self) -> Option<&Spread> {
        self.try_spread().as_ref().ok()
    }

    fn try_spread(&self) -> &Result<Spread, String> {
        self.spread.get_or_init(|| Spread::new(&self.device))
    }

    /// A lane's stream with its graphs.
    pub(crate) fn runner<K: Eq + std::hash::Hash + Clone>(&self, stream: &Stream) -> Runner<K> {
        let mut settings = Settings::default();
        match self.graphs {
            Graphs::Off => return Runner::without_graphs(stream),
            Graphs::Checked => settings.checks = N_CHECKS,
            Graphs::Auto => {}
        }
        Runner::new(stream, settings)
    }

    /// What kernels are made and tuned for: chips of one architecture come with different numbers of
    /// processors.
    pub(crate) fn architecture(&self) -> String {
        let properties = self.device.properties();
        format!("{}:processors={}", properties.architecture, properties.n_processors)
    }

    /// The kernel driver's version, or that of the runtime's part of it.
    pub(crate) fn driver(&self) -> Option<String> {
        let kernel = fs::read_to_string(DRIVER).ok().map(|version| version.trim().to_owned());
        let hip = self.device.hip();
        kernel.or_else(|| hip.driver_version().ok().map(|version| version.to_string()))
    }

    /// Whether graphs are used; if not, why.
    fn graphs(&self) -> String {
        let device = &self.device;
        let architecture = &device.properties().architecture;
        let denied = denial_of(device.hip().platform(), device.runtime_version(), architecture);
        match (self.graphs, denied) {
            (Graphs::Off, _) => "off: that was asked for".to_owned(),
            (Graphs::Checked, _) => "on, checked against eager runs first".to_owned(),
            (Graphs::Auto, Some(reason)) => reason.to_string(),
            (Graphs::Auto, None) => "on".to_owned(),
        }
    }

    /// What a person may want to know.
    pub(crate) fn report(&self) -> Result<DeviceReport, HipError> {
        let (free, total) = self.device.memory()?;
        let (hip, properties) = (self.device.hip(), self.device.properties());
        let (used, budget) = self.memory.used();
        Ok(DeviceReport {
            index: usize::try_from(self.device.index()).unwrap_or(0),
            name: properties.name.clone(),
            architecture: properties.architecture.clone(),
            pci_address: properties.pci_address.clone(),
            library: hip.path().to_owned(),
            runtime: self.device.runtime_version().to_string(),
            driver: self.driver(),
            free_bytes: free as u64,
            total_bytes: total as u64,
            budget_bytes: budget,
            used_bytes: used,
            graphs: self.graphs(),
            padding: match self.try_spread() {
                Ok(_) => "on the device".to_owned(),
                Err(reason) => format!("on the host: {reason}"),
            },
        })
    }
}
