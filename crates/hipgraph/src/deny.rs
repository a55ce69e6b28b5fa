//! Runtimes that are known to corrupt what a graph replays, as data.

use std::fmt;

use hip_sys::Platform;

/// One runtime on one architecture that is not to be trusted with graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Denial {
    /// Whose runtime.
    pub platform: Platform,
    /// How the architecture's name begins.
    pub architecture: &'static str,
    /// The first version, as [`Hip::runtime_version`](hip_sys::Hip::runtime_version) numbers it.
    pub from: i32,
    /// The first version after it that is not known to be bad.
    pub before: i32,
    /// What goes wrong.
    pub reason: &'static str,
    /// Where that was reported.
    pub source: &'static str,
}

/// HIP's version has the build in place of the patch; 53211 is the build of ROCm 7.2.4.
const DENIALS: [Denial; 2] = [
    Denial {
        platform: Platform::Amd,
        architecture: "gfx942",
        from: 70_200_000,
        before: 70_253_211,
        reason: "in about one of five processes, replays of ROCm 7.2.0 to 7.2.3 on MI300 are corrupt",
        source: "ROCm/clr issue 279",
    },
    Denial {
        platform: Platform::Amd,
        architecture: "gfx950",
        from: 70_200_000,
        before: 70_300_000,
        reason: "replays of ROCm 7.2 on MI350 read stale memory after a copy from the host",
        source: "ROCm/hip issue 3902",
    },
];

/// Why graphs are off for a runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenialReason {
    /// The rule that applies.
    pub denial: Denial,
    /// The version that it was applied to.
    pub version: i32,
}

impl fmt::Display for DenialReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Denial { architecture, reason, source, .. } = self.denial;
        write!(
            f,
            "graphs are off on {architecture} with runtime {}: {reason} ({source})",
            self.version
        )
    }
}

/// The rule that applies to a runtime on a device, if any.
#[must_use]
pub fn denial_of(platform: Platform, version: i32, architecture: &str) -> Option<DenialReason> {
    let applies = |denial: &&Denial| {
        denial.platform == platform
            && architecture.starts_with(denial.architecture)
            && (denial.from..denial.before).contains(&version)
    };
    DENIALS.iter().find(applies).map(|denial| DenialReason { denial: *denial, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_versions_on_the_named_architectures_are_denied() {
        let denied = |version, architecture| denial_of(Platform::Amd, version, architecture);
        assert!(denied(70_226_015, "gfx942:sramecc+:xnack-").is_some());
        assert!(denied(70_253_211, "gfx942").is_none());
        assert!(denied(70_199_999, "gfx942").is_none());
        assert!(denied(70_253_211, "gfx950").is_some());
        assert!(denied(70_226_015, "gfx90a").is_none());
        assert!(denial_of(Platform::Nvidia, 70_226_015, "gfx942").is_none());
    }

    #[test]
    fn the_reason_says_where_it_was_reported() {
        let reason = denial_of(Platform::Amd, 70_226_015, "gfx942").unwrap().to_string();
        assert!(reason.contains("70226015") && reason.contains("issue 279"), "{reason}");
    }
}
