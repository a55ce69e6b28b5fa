//! The two platforms, and what their libraries are called.

use std::fmt;

/// Whose runtime answers HIP's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Platform {
    /// ROCm's HIP on AMD's devices.
    Amd,
    /// CUDA on NVIDIA's devices, whose calls HIP maps to.
    Nvidia,
}

impl Platform {
    /// Both, in the order in which they are tried.
    pub const ALL: [Self; 2] = [Self::Amd, Self::Nvidia];

    /// The value of `HIP_PLATFORM` that chooses it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd => "amd",
            Self::Nvidia => "nvidia",
        }
    }

    /// The platform that a value of `HIP_PLATFORM` names; `hcc` and `nvcc` are HIP's older words.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "amd" | "hcc" => Some(Self::Amd),
            "nvidia" | "nvcc" => Some(Self::Nvidia),
            _ => None,
        }
    }

    /// What the runtime's file is called, the newest first.
    pub(crate) fn runtime_files(self) -> &'static [&'static str] {
        match self {
            Self::Amd if cfg!(windows) => &["amdhip64_7.dll", "amdhip64_6.dll", "amdhip64.dll"],
            Self::Amd => &["libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5"],
            Self::Nvidia if cfg!(windows) => &["cudart64_13.dll", "cudart64_12.dll"],
            Self::Nvidia => &["libcudart.so.13", "libcudart.so.12"],
        }
    }

    /// What the library beside the runtime is called that has the rest of the functions.
    pub(crate) fn driver_file(self) -> Option<&'static str> {
        match self {
            Self::Amd => None,
            Self::Nvidia if cfg!(windows) => Some("nvcuda.dll"),
            Self::Nvidia => Some("libcuda.so.1"),
        }
    }

    /// What the run-time compiler's file is called. HIP 5 and 6 have it in the runtime as well.
    pub(crate) fn compiler_files(self) -> &'static [&'static str] {
        match self {
            Self::Amd if cfg!(windows) => &["hiprtc0700.dll", "hiprtc0600.dll"],
            Self::Amd => &["libhiprtc.so.7", "libhiprtc.so.6"],
            Self::Nvidia if cfg!(windows) => &["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"],
            Self::Nvidia => &["libnvrtc.so.13", "libnvrtc.so.12"],
        }
    }

    /// A function that every runtime of the platform has, and no other library.
    pub(crate) fn telling_function(self) -> &'static str {
        match self {
            Self::Amd => "hipGetDeviceCount",
            Self::Nvidia => "cudaGetDeviceCount",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hip_platform_are_read() {
        for platform in Platform::ALL {
            assert_eq!(Platform::from_name(platform.name()), Some(platform));
        }
        assert_eq!(Platform::from_name("NVCC "), Some(Platform::Nvidia));
        assert_eq!(Platform::from_name("intel"), None);
    }
}
