//! One GPU, as HIP shows it.

use std::env;
use std::fs;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hip_sys::{Hip, HipError, PLATFORM_VARIABLE, Platform, SearchOptions};
use hipgraph::{Device, Pinned, Runner, Settings, Stream, denial_of};
use shapeyard_core::backend::DeviceReport;

use super::memory::Memory;
use super::spread::Spread;
use crate::options::{DeviceOptions, Graphs};

const DRIVER: &str = "/sys/module/amdgpu/version";
/// Replays that are compared before a graph serves, where that was asked for.
const N_CHECKS: u32 = 3;

/// The part of what is free that is left to compiles, and to what libraries take by themselves, where nobody
/// set a budget: one of so many.
const KEPT_BACK: u64 = 16;

/// Captures and replays that failed; the runs were answered all the same.
#[derive(Debug, Default)]
struct FailedGraphs {
    n: u64,
    last: Option<String>,
}

/// HIP's runtime.
fn runtime() -> Result<Arc<Hip>, String> {
    let search = SearchOptions::default();
    // MIGraphX is AMD's; another platform has to be asked for by name.
    let is_chosen = env::var_os(PLATFORM_VARIABLE).is_some();
    let search = if is_chosen { search } else { search.on(Platform::Amd) };
    let hip = Hip::open(&search)
        .map_err(|error| format!("there is no AMD GPU that HIP could show: {error}"))?;
    Ok(Arc::new(hip))
}

fn open(hip: &Arc<Hip>, index: usize) -> Result<Device, String> {
    Device::new(Arc::clone(hip), index).map_err(|error| match error {
        error if error.fault.is_no_device() => {
            format!("there is no AMD GPU: HIP ({}) sees none ({error})", hip.path().display())
        }
        error => format!("device {index} cannot be used: {error}"),
    })
}

/// Makes a device the calling thread's, as a compile for it needs.
///
/// # Errors
///
/// A sentence: there is no such device.
pub(crate) fn enter(index: usize) -> Result<Pinned, String> {
    open(&runtime()?, index)?.pin().map_err(|error| error.to_string())
}

/// Why MIGraphX cannot be captured as these variables set it up.
fn veto(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let is_on = |name: &str| {
        let value = variable(name).unwrap_or_default().to_lowercase();
        !["", "0", "no", "off", "false", "disable", "disabled"].contains(&value.as_str())
    };
    let said = |name: &str, why: &str| format!("{name} is set, {why}");
    let n_streams = variable("MIGRAPHX_NSTREAMS").and_then(|text| text.trim().parse().ok());
    if n_streams.unwrap_or(1_u32) > 1 {
        return Some(said("MIGRAPHX_NSTREAMS", "and only what is on one stream is captured"));
    }
    [
        ("MIGRAPHX_HIP_GRAPH", "by which MIGraphX captures its programs itself"),
        ("MIGRAPHX_ENABLE_NULL_STREAM", "and the default stream cannot be captured"),
        ("MIGRAPHX_TRACE_EVAL", "which waits for the device in the middle of a run"),
    ]
    .into_iter()
    .find(|(name, _)| is_on(name))
    .map(|(name, why)| said(name, why))
}

/// One GPU that programs run on.
#[derive(Debug)]
pub(crate) struct Gpu {
    device: Device,
    memory: Arc<Memory>,
    graphs: Graphs,
    /// Why MIGraphX as it is set up cannot be captured.
    veto: Option<String>,
    failed_graphs: Mutex<FailedGraphs>,
    spread: OnceLock<Result<Spread, String>>,
}

impl Gpu {
    /// The GPUs that were asked for, all of one architecture.
    ///
    /// # Errors
    ///
    /// A sentence: there is no runtime, or no such device, or they are of different kinds.
    pub(crate) fn open(options: &DeviceOptions) -> Result<Vec<Arc<Self>>, String> {
        let hip = runtime()?;
        let mut gpus: Vec<Arc<Self>> = Vec::new();
        for &index in &options.devices {
            let known = gpus.iter().find(|gpu| usize::try_from(gpu.device.index()) == Ok(index));
            let gpu = match known {
                Some(gpu) => Arc::clone(gpu),
                None => Arc::new(Self::on(&hip, index, options)?),
            };
            gpus.push(gpu);
        }
        let first = gpus.first();
        let other = gpus
            .iter()
            .find(|gpu| first.is_some_and(|first| gpu.architecture() != first.architecture()));
        match first.zip(other) {
            None => Ok(gpus),
            Some((first, other)) => Err(format!(
                "device {} is {} and device {} is {}: programs are compiled for one of them; open each \
                 kind by itself",
                first.device.index(),
                first.architecture(),
                other.device.index(),
                other.architecture(),
            )),
        }
    }

    fn on(hip: &Arc<Hip>, index: usize, options: &DeviceOptions) -> Result<Self, String> {
        let device = open(hip, index)?;
        let free_of = |device: &Device| device.memory().map(|(free, _)| free as u64);
        let free = || free_of(&device).map(|free| free - free / KEPT_BACK);
        let budget = options.memory.map_or_else(free, Ok).map_err(|error| error.to_string())?;
        let asked = device.clone();
        let memory = Memory::new(budget, move || free_of(&asked).ok());
        let graphs = options.graphs;
        let veto = veto(|name| env::var(name).ok());
        let failed_graphs = Mutex::default();
        Ok(Self { device, memory, graphs, veto, failed_graphs, spread: OnceLock::new() })
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Takes down why a captured run did not serve, or was not captured.
    pub(crate) fn note_failed_graph(&self, reason: &str) {
        let mut failed = self.failed_graphs.lock().unwrap_or_else(PoisonError::into_inner);
        failed.n += 1;
        failed.last = Some(reason.to_owned());
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
            _ if self.veto.is_some() => return Runner::without_graphs(stream),
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
            _ if let Some(veto) = &self.veto => format!("off: {veto}"),
            (Graphs::Checked, _) => "on, checked against eager runs first".to_owned(),
            (Graphs::Auto, Some(reason)) => reason.to_string(),
            (Graphs::Auto, None) => "on".to_owned(),
        }
    }

    /// What a person may want to know.
    pub(crate) fn report(&self) -> Result<DeviceReport, HipError> {
        let (free, total) = self.device.memory()?;
        let (hip, properties) = (self.device.hip(), self.device.properties());
        let ((used, budget), counts) = (self.memory.used(), self.memory.counts());
        let failed_graphs = self.failed_graphs.lock().unwrap_or_else(PoisonError::into_inner);
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
            n_loads: counts.loads,
            n_evictions: counts.evictions,
            graphs: self.graphs(),
            n_failed_graphs: failed_graphs.n,
            failed_graph: failed_graphs.last.clone(),
            padding: match self.try_spread() {
                Ok(_) => "on the device".to_owned(),
                Err(reason) => format!("on the host: {reason}"),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pitfalls_66_67_variables_that_forbid_captures_are_told() {
        let veto_of =
            |name: &str, value: &str| veto(|asked| (asked == name).then(|| value.to_owned()));
        for (name, value) in [
            ("MIGRAPHX_NSTREAMS", "2"),
            ("MIGRAPHX_HIP_GRAPH", "1"),
            ("MIGRAPHX_ENABLE_NULL_STREAM", "true"),
            ("MIGRAPHX_TRACE_EVAL", "2"),
        ] {
            let reason = veto_of(name, value).unwrap();
            assert!(reason.starts_with(name), "{reason}");
        }
        for (name, value) in [
            ("MIGRAPHX_NSTREAMS", "1"),
            ("MIGRAPHX_NSTREAMS", "many"),
            ("MIGRAPHX_HIP_GRAPH", "0"),
            ("MIGRAPHX_TRACE_EVAL", ""),
            ("MIGRAPHX_TRACE_COMPILE", "1"),
        ] {
            assert_eq!(veto_of(name, value), None, "{name}={value}");
        }
        assert_eq!(veto(|_| None), None);
    }
}
