//! What a machine has or lacks.

use anyhow::{Result, bail};

/// Something that a machine may lack without anything being broken.
///
/// It is apart from `Result`, so that a command has to decide: carry on and say what was left out,
/// or insist. An `Err` stays what it is, a fault.
#[derive(Debug)]
pub(crate) enum Availability<T> {
    Ready(T),
    /// Why it is not here and what would help, in a sentence or two.
    Missing(String),
}

impl<T> Availability<T> {
    /// Turns a lack into an error, for commands that cannot do without.
    pub(crate) fn require(self) -> Result<T> {
        match self {
            Self::Ready(value) => Ok(value),
            Self::Missing(reason) => bail!("{reason}"),
        }
    }

    /// The line `name: reason` of something that is missing.
    pub(crate) fn lack(&self, name: &str) -> Option<String> {
        match self {
            Self::Ready(_) => None,
            Self::Missing(reason) => Some(format!("{name}: {reason}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_required_lack_keeps_its_reason() {
        let lack: Availability<()> = Availability::Missing("no pip".to_owned());
        assert_eq!(lack.require().unwrap_err().to_string(), "no pip");
    }

    #[test]
    fn a_lack_has_a_line_and_a_presence_has_none() {
        let lack: Availability<u8> = Availability::Missing("no pip".to_owned());
        assert_eq!(lack.lack("models").as_deref(), Some("models: no pip"));
        assert_eq!(Availability::Ready(1).lack("models"), None);
    }
}
