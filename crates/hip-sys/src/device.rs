//! What a runtime says about devices and addresses.

use std::ffi::{c_int, c_void};

use crate::differing::PropertyLayout;
use crate::error::HipError;
use crate::open::Hip;
use crate::platform::Platform;

/// What the runtime says about a device.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceProperties {
    /// The product's name: `NVIDIA H200`.
    pub name: String,
    /// The architecture as compilers call it: `gfx942:sramecc+:xnack-`, `sm_90`.
    pub architecture: String,
    /// Memory of the device, in bytes.
    pub total_memory: u64,
    /// Processors of the device.
    pub n_processors: u32,
    /// Lanes that run in step: 32 or 64.
    pub warp_size: u32,
    /// The address on the bus: `0000:c1:00.0`.
    pub pci_address: String,
}

/// Numbers that [`Hip::device_attribute`] can be asked for; the platforms number them differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceAttribute {
    /// The first part of the version of what the device can compute.
    ComputeCapabilityMajor,
    /// The second part of it.
    ComputeCapabilityMinor,
    /// Processors of the device.
    ProcessorCount,
    /// Lanes that run in step.
    WarpSize,
    /// Most threads of a block.
    MaxThreadsPerBlock,
    /// Most shared memory of a block, in bytes.
    MaxSharedMemoryPerBlock,
    /// Whether the device shares the host's memory.
    Integrated,
    /// Whether host memory can be mapped into the device's addresses.
    CanMapHostMemory,
}

impl DeviceAttribute {
    /// From `hip_runtime_api.h` of 5.2 and 6.4, and `driver_types.h` of CUDA 13.0.
    pub(crate) fn number(self, platform: Platform) -> c_int {
        let (amd, nvidia) = match self {
            Self::ComputeCapabilityMajor => (23, 75),
            Self::ComputeCapabilityMinor => (61, 76),
            Self::ProcessorCount => (63, 16),
            Self::WarpSize => (87, 10),
            Self::MaxThreadsPerBlock => (56, 1),
            Self::MaxSharedMemoryPerBlock => (74, 8),
            Self::Integrated => (16, 18),
            Self::CanMapHostMemory => (3, 19),
        };
        match platform {
            Platform::Amd => amd,
            Platform::Nvidia => nvidia,
        }
    }
}

/// Room for any version's properties: the largest known has 1472 bytes.
#[repr(C, align(16))]
pub(crate) struct PropertyBytes([u8; 4096]);

/// Where fields lie, in bytes; as the headers' own offsets.
struct Offsets {
    total_memory: usize,
    warp_size: usize,
    n_processors: Option<usize>,
    architecture: Option<usize>,
}

impl PropertyLayout {
    fn offsets(self) -> Offsets {
        match self {
            Self::Hip5 => Offsets {
                total_memory: 256,
                warp_size: 276,
                n_processors: Some(336),
                architecture: Some(396),
            },
            Self::Hip6 => Offsets {
                total_memory: 288,
                warp_size: 308,
                n_processors: Some(388),
                architecture: Some(1160),
            },
            Self::Cuda => Offsets {
                total_memory: 288,
                warp_size: 308,
                n_processors: None,
                architecture: None,
            },
        }
    }
}

impl PropertyBytes {
    fn text(&self, at: usize) -> String {
        let field = &self.0[at..at + 256];
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        String::from_utf8_lossy(&field[..end]).into_owned()
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes(std::array::from_fn(|index| self.0[at + index]))
    }

    fn double_word(&self, at: usize) -> u64 {
        u64::from_ne_bytes(std::array::from_fn(|index| self.0[at + index]))
    }
}

pub(crate) fn properties(hip: &Hip, device: c_int) -> Result<DeviceProperties, HipError> {
    let mut bytes = PropertyBytes([0; 4096]);
    hip.get_properties(&mut bytes, device)?;
    let offsets = hip.differing.layout.offsets();
    let ask = |attribute| {
        let number = hip.device_attribute(attribute, usize::try_from(device).unwrap_or(0))?;
        Ok::<u32, HipError>(u32::try_from(number).unwrap_or(0))
    };
    let architecture = match offsets.architecture {
        Some(at) => bytes.text(at),
        None => format!(
            "sm_{}{}",
            ask(DeviceAttribute::ComputeCapabilityMajor)?,
            ask(DeviceAttribute::ComputeCapabilityMinor)?
        ),
    };
    let n_processors = match offsets.n_processors {
        Some(at) => bytes.word(at),
        None => ask(DeviceAttribute::ProcessorCount)?,
    };
    Ok(DeviceProperties {
        name: bytes.text(0),
        architecture,
        total_memory: bytes.double_word(offsets.total_memory),
        n_processors,
        warp_size: bytes.word(offsets.warp_size),
        pci_address: hip.pci_address(device)?,
    })
}

/// What kind of memory an address lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PointerKind {
    /// Memory that the runtime does not know: the host's own.
    Unregistered,
    /// Pinned memory of the host.
    Host,
    /// Memory of a device.
    Device,
    /// Memory that moves between host and devices.
    Managed,
    /// Another kind, by the runtime's number.
    Other(c_int),
}

/// What the runtime knows about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PointerAttributes {
    /// What kind of memory it lies in.
    pub kind: PointerKind,
    /// The device that the memory belongs to; negative for none.
    pub device: c_int,
    /// The address as a device has it; null for none.
    pub device_address: *mut c_void,
    /// The address as the host has it; null for none.
    pub host_address: *mut c_void,
}

impl PointerAttributes {
    pub(crate) fn unregistered() -> Self {
        let none = std::ptr::null_mut();
        let kind = PointerKind::Unregistered;
        Self { kind, device: -1, device_address: none, host_address: none }
    }
}

/// The first 24 bytes are the same on both platforms; CUDA's structure has 88 in all.
#[repr(C)]
pub(crate) struct PointerBytes {
    kind: c_int,
    device: c_int,
    device_address: *mut c_void,
    host_address: *mut c_void,
    rest: [u64; 29],
}

impl Default for PointerBytes {
    fn default() -> Self {
        let none = std::ptr::null_mut();
        Self { kind: 0, device: -1, device_address: none, host_address: none, rest: [0; 29] }
    }
}

impl PointerBytes {
    pub(crate) fn read(&self, layout: PropertyLayout) -> PointerAttributes {
        PointerAttributes {
            kind: kind(layout, self.kind),
            device: self.device,
            device_address: self.device_address,
            host_address: self.host_address,
        }
    }
}

/// HIP 6 took over CUDA's numbers.
fn kind(layout: PropertyLayout, number: c_int) -> PointerKind {
    match (layout, number) {
        (PropertyLayout::Hip5, 0) => PointerKind::Host,
        (PropertyLayout::Hip5, 1) => PointerKind::Device,
        (PropertyLayout::Hip5, other) => PointerKind::Other(other),
        (_, 0) => PointerKind::Unregistered,
        (_, 1) => PointerKind::Host,
        (_, 2) => PointerKind::Device,
        (_, 3) => PointerKind::Managed,
        (_, other) => PointerKind::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_memory_changed_with_hip_6() {
        assert_eq!(kind(PropertyLayout::Hip5, 1), PointerKind::Device);
        assert_eq!(kind(PropertyLayout::Hip6, 1), PointerKind::Host);
        assert_eq!(kind(PropertyLayout::Cuda, 2), PointerKind::Device);
        assert_eq!(kind(PropertyLayout::Cuda, 11), PointerKind::Other(11));
    }

    #[test]
    fn fields_are_read_where_the_headers_have_them() {
        let mut bytes = PropertyBytes([0; 4096]);
        bytes.0[..4].copy_from_slice(b"MI30");
        bytes.0[288..296].copy_from_slice(&(192_u64 << 30).to_ne_bytes());
        bytes.0[1160..1166].copy_from_slice(b"gfx942");
        assert_eq!(bytes.text(0), "MI30");
        let offsets = PropertyLayout::Hip6.offsets();
        assert_eq!(bytes.double_word(offsets.total_memory), 192 << 30);
        assert_eq!(bytes.text(offsets.architecture.unwrap()), "gfx942");
    }

    #[test]
    fn the_places_hold_either_platforms_structure() {
        assert!(size_of::<PointerBytes>() >= 88 && size_of::<PropertyBytes>() >= 1472);
    }
}
