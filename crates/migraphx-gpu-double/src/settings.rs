//! How the double behaves, and what it is to get wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::sync::{Arc, Mutex, PoisonError};

use crate::dtype::Numbering;

/// The variable that the settings are read from when the library is first called.
pub(crate) const VARIABLE: &str = "SHAPEYARD_GPU_DOUBLE";

/// The words that settings are made of, separated by commas; `fault=3` is the third such call only.
pub(crate) const WORDS: &str = "types-without-fp4x2, queue-bound, scratch-parameter, extra=INDEX, \
    outputs-add-up, without-device, parse-fails, compile-fails, compile-hangs, compile-crashes, load-fails, \
    load-out-of-memory, run-fails, run-crashes, run-out-of-memory, run-synchronises, nothing-cleared";

/// What goes wrong on demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    ParseFails,
    CompileFails,
    CompileHangs,
    CompileCrashes,
    LoadFails,
    LoadOutOfMemory,
    /// In the middle of what it enqueues.
    RunFails,
    RunCrashes,
    RunOutOfMemory,
    /// A call in the middle of a run that a capture forbids.
    RunSynchronises,
    /// What is added to is not cleared before.
    NothingCleared,
}

const FAULTS: [(&str, Fault); 11] = [
    ("parse-fails", Fault::ParseFails),
    ("compile-fails", Fault::CompileFails),
    ("compile-hangs", Fault::CompileHangs),
    ("compile-crashes", Fault::CompileCrashes),
    ("load-fails", Fault::LoadFails),
    ("load-out-of-memory", Fault::LoadOutOfMemory),
    ("run-fails", Fault::RunFails),
    ("run-crashes", Fault::RunCrashes),
    ("run-out-of-memory", Fault::RunOutOfMemory),
    ("run-synchronises", Fault::RunSynchronises),
    ("nothing-cleared", Fault::NothingCleared),
];

/// On which queue a run works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    /// On the program's own, which waits for the caller's and which that waits for: ROCm 6.4 to 7.2.2.
    Own,
    /// On the caller's, bound to the program during the run and, after a failure, longer: ROCm 7.2.3.
    Bound,
}

/// How the double behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) numbering: Numbering,
    pub(crate) queue: Queue,
    /// Whether scratch is a parameter rather than memory of the program.
    pub(crate) scratch_parameter: bool,
    /// Whether outputs in memory of the caller are added to and not cleared before.
    pub(crate) outputs_add_up: bool,
    /// Outputs in memory of the program, beside those that are so anyway.
    pub(crate) extra: BTreeSet<usize>,
    /// Whether programs are compiled and loaded without a device, which cannot run then.
    pub(crate) without_device: bool,
    /// What goes wrong, each time or in the call of that number.
    faults: BTreeMap<Fault, Option<usize>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            numbering: Numbering::WithFp4x2,
            queue: Queue::Own,
            scratch_parameter: false,
            outputs_add_up: false,
            extra: BTreeSet::new(),
            without_device: false,
            faults: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Reads settings; an unknown word is the error.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut settings = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            settings.add(word)?;
        }
        Ok(settings)
    }

    fn add(&mut self, word: &str) -> Result<(), String> {
        let (name, number) = match word.split_once('=') {
            Some((name, number)) => {
                let number = number.parse().map_err(|_| format!("`{word}` has no number"))?;
                (name, Some(number))
            }
            None => (word, None),
        };
        match (name, number) {
            ("types-without-fp4x2", None) => self.numbering = Numbering::WithoutFp4x2,
            ("queue-bound", None) => self.queue = Queue::Bound,
            ("scratch-parameter", None) => self.scratch_parameter = true,
            ("outputs-add-up", None) => self.outputs_add_up = true,
            ("without-device", None) => self.without_device = true,
            ("extra", Some(index)) => {
                self.extra.insert(index);
            }
            (name, number) => {
                let fault = FAULTS.into_iter().find(|(word, _)| *word == name);
                let (_, fault) = fault.ok_or_else(|| format!("`{word}` is none of: {WORDS}"))?;
                self.faults.insert(fault, number);
            }
        }
        Ok(())
    }
}

/// The settings now, and how often each fault could have happened.
#[derive(Debug, Default)]
struct Current {
    settings: Option<Arc<Settings>>,
    calls: BTreeMap<Fault, usize>,
}

static CURRENT: Mutex<Current> = Mutex::new(Current { settings: None, calls: BTreeMap::new() });

fn with_current<T>(look: impl FnOnce(&mut Current) -> T) -> T {
    look(&mut CURRENT.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The settings now.
pub(crate) fn settings() -> Result<Arc<Settings>, String> {
    with_current(|current| {
        if let Some(settings) = &current.settings {
            return Ok(Arc::clone(settings));
        }
        let text = env::var(VARIABLE).unwrap_or_default();
        let read = Settings::parse(&text).map_err(|error| format!("{VARIABLE}: {error}"))?;
        Ok(Arc::clone(current.settings.insert(Arc::new(read))))
    })
}

/// Changes the settings, and counts anew.
pub(crate) fn change(settings: Settings) {
    with_current(|current| {
        *current = Current { settings: Some(Arc::new(settings)), calls: BTreeMap::new() };
    });
}

/// Whether this is a call that goes wrong so.
pub(crate) fn goes_wrong(fault: Fault) -> bool {
    let Ok(settings) = settings() else { return false };
    let Some(number) = settings.faults.get(&fault) else { return false };
    with_current(|current| {
        let calls = current.calls.entry(fault).or_default();
        *calls += 1;
        number.is_none_or(|number| number == *calls)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_settings() {
        assert_eq!(Settings::parse("").unwrap(), Settings::default());
        let settings = Settings::parse("queue-bound, extra=1,extra=3, run-fails=2").unwrap();
        assert_eq!(settings.queue, Queue::Bound);
        assert_eq!(settings.extra, BTreeSet::from([1, 3]));
        assert_eq!(settings.faults, BTreeMap::from([(Fault::RunFails, Some(2))]));
    }

    #[test]
    fn what_is_no_setting_is_refused() {
        assert!(Settings::parse("run-fail").unwrap_err().contains("run-fails"));
        assert!(Settings::parse("run-fails=often").unwrap_err().contains("no number"));
        assert!(Settings::parse("extra").is_err());
    }

    #[test]
    fn every_word_is_told() {
        for (word, _) in FAULTS {
            assert!(WORDS.contains(word), "{word}");
        }
    }
}
