//! ggml's sources in a folder that another machine builds, without cargo and without network.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{OPTIONS, Part, sources};
use crate::paths::{self, Layout};

/// Puts into `folder` the script that builds ggml, and into `folder/ggml` what it builds it of: our recipe,
/// ggml's sources as far as this part wants them, and the options, one a line.
pub(crate) fn pack(layout: &Layout, part: Part, folder: &Path) -> Result<()> {
    let recipe = layout.root().join("xtask").join("ggml");
    let to = folder.join("ggml");
    paths::create_folder(&to)?;
    paths::copy_file(&recipe.join("build-ggml.sh"), &folder.join("build-ggml.sh"))?;
    paths::copy_file(&recipe.join("CMakeLists.txt"), &to.join("CMakeLists.txt"))?;
    let _guard = layout.lock()?;
    let package = layout.setup().join("ggml-sources");
    let from = sources(&package)?.require().context("ggml cannot be packed")?;
    let is_left_out = |name: &str| is_another_part(name, part);
    paths::copy_folder(&from.join("ggml"), &to.join("sources").join("ggml"), &is_left_out)?;
    paths::remove_folder(&package)?;
    let options = [&OPTIONS, part.options()].concat().join("\n");
    let file = to.join("options");
    fs::write(&file, options + "\n").with_context(|| format!("cannot write {}", file.display()))
}

/// Whether a folder of ggml's is a part that is not built.
fn is_another_part(name: &str, part: Part) -> bool {
    name.starts_with("ggml-") && name != "ggml-cpu" && !part.folders().contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parts_that_are_built_are_packed() {
        for kept in ["ggml-cpu", "ggml-cuda", "include", "template-instances"] {
            assert!(!is_another_part(kept, Part::Cuda), "{kept}");
        }
        assert!(is_another_part("ggml-vulkan", Part::Cuda));
        assert!(is_another_part("ggml-cuda", Part::Cpu));
        assert!(!is_another_part("ggml-cuda", Part::Hip), "HIP compiles CUDA's kernels");
    }
}
