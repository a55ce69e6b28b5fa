//! What of ggml is built: the processor's part always, and one for a kind of GPU where that is asked for.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::availability::Availability;
use crate::process;

/// A part of ggml by the interface that it reaches its devices by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// None for a GPU, unless ggml has one by itself, as on macOS
    Cpu,
    /// NVIDIA's GPUs; wants nvcc and cuBLAS of the CUDA Toolkit
    Cuda,
    /// AMD's GPUs; wants hipcc, rocBLAS and hipBLAS of ROCm
    Hip,
    /// Apple's GPUs; wants Xcode's command line tools
    Metal,
    /// GPUs by Vulkan; wants glslc and the headers of Vulkan and SPIR-V
    Vulkan,
}

impl Part {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Hip => "hip",
            Self::Metal => "metal",
            Self::Vulkan => "vulkan",
        }
    }

    /// What cmake is told.
    ///
    /// No graph of ours has ggml's fused attention, whose kernels take most of the time that CUDA's part is
    /// built for. Without memory that is mapped bit by bit no function of the driver itself is linked, so
    /// the library loads, and the processor computes, where there is no driver. NCCL would be one more
    /// library to find at run time, and serves work that is split over several GPUs.
    pub(crate) const fn options(self) -> &'static [&'static str] {
        match self {
            Self::Cpu => &[],
            Self::Cuda => &[
                "-DGGML_CUDA=ON",
                "-DGGML_CUDA_FA=OFF",
                "-DGGML_CUDA_NO_VMM=ON",
                "-DGGML_CUDA_NCCL=OFF",
            ],
            Self::Hip => &["-DGGML_HIP=ON", "-DGGML_CUDA_FA=OFF"],
            Self::Metal => &["-DGGML_METAL=ON"],
            Self::Vulkan => &["-DGGML_VULKAN=ON"],
        }
    }

    /// ggml's folders that it is built of, besides the processor's.
    pub(crate) const fn folders(self) -> &'static [&'static str] {
        match self {
            Self::Cpu => &[],
            Self::Cuda => &["ggml-cuda"],
            Self::Hip => &["ggml-hip", "ggml-cuda"],
            Self::Metal => &["ggml-metal"],
            Self::Vulkan => &["ggml-vulkan"],
        }
    }

    /// ggml's name for the first device of its kind.
    pub(crate) const fn first_device(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Cuda => "CUDA0",
            Self::Hip => "ROCm0",
            Self::Metal => "MTL0",
            Self::Vulkan => "Vulkan0",
        }
    }

    pub(crate) const fn build_takes(self) -> &'static str {
        match self {
            Self::Cpu | Self::Metal => "a minute",
            Self::Cuda | Self::Hip | Self::Vulkan => "half an hour of processor time",
        }
    }

    /// Whether the compiler of its kernels is here.
    pub(crate) fn compiler(self) -> Result<Availability<()>> {
        let (compiler, origin) = match self {
            Self::Cpu => return Ok(Availability::Ready(())),
            Self::Cuda => ("nvcc", "NVIDIA's CUDA Toolkit"),
            Self::Hip => ("hipcc", "AMD's ROCm"),
            Self::Metal => ("xcrun", "Xcode"),
            Self::Vulkan => ("glslc", "the Vulkan SDK"),
        };
        if process::works(Command::new(compiler).arg("--version"))? {
            return Ok(Availability::Ready(()));
        }
        Ok(Availability::Missing(format!(
            "its part for {} is built with {compiler}, which is not on the PATH ({origin} brings it; \
             `cargo xtask setup --ggml-device cpu` does without).",
            self.name()
        )))
    }

    /// The part that was asked for last, of which the file says; the processor's where nobody asked.
    pub(crate) fn chosen_before(file: &Path) -> Result<Self> {
        let text = match fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Cpu),
            text => text.with_context(|| format!("cannot read {}", file.display()))?,
        };
        let named = |part: &&Self| part.name() == text.trim();
        match Self::value_variants().iter().find(named) {
            Some(part) => Ok(*part),
            None => bail!("{} names no part of ggml; remove it", file.display()),
        }
    }

    /// Writes down that this part was asked for.
    pub(crate) fn choose(self, file: &Path) -> Result<()> {
        fs::write(file, format!("{}\n", self.name()))
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_named_as_they_are_asked_for() {
        for part in Part::value_variants() {
            assert_eq!(part.to_possible_value().unwrap().get_name(), part.name());
        }
    }

    #[test]
    fn a_choice_is_kept_and_none_is_the_processor() {
        let folder = std::env::temp_dir().join(format!("shapeyard-part-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("libggml.choice");
        assert_eq!(Part::chosen_before(&file).unwrap(), Part::Cpu);
        Part::Cuda.choose(&file).unwrap();
        assert_eq!(Part::chosen_before(&file).unwrap(), Part::Cuda);
        fs::write(&file, "abacus").unwrap();
        assert!(Part::chosen_before(&file).unwrap_err().to_string().contains("remove it"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
