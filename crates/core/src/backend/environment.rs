//! The environment variables that change generated code.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use serde::{Deserialize, Serialize};

/// Variables and their values at one moment.
///
/// Taken when a library is loaded and kept for every key of that library: a variable that changes
/// later changes neither what the library does nor the key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Environment(BTreeMap<String, String>);

/// Which variables count.
#[derive(Clone, Copy, Debug, Default)]
pub struct EnvironmentRule<'a> {
    /// Starts of the names that count, such as `MIGRAPHX_`.
    pub prefixes: &'a [&'a str],
    /// Names among them that do not change generated code, such as those for tracing. One that ends
    /// in `*` stands for every name that starts so.
    pub harmless: &'a [&'a str],
}

impl Environment {
    /// The variables of this process that count.
    #[must_use]
    pub fn snapshot(rule: &EnvironmentRule<'_>) -> Self {
        Self::from_variables(rule, std::env::vars_os())
    }

    /// Those of the given variables that count.
    #[must_use]
    pub fn from_variables(
        rule: &EnvironmentRule<'_>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let texts = variables.into_iter().map(|(name, value)| (text(&name), text(&value)));
        Self(texts.filter(|(name, _)| rule.counts(name)).collect())
    }

    /// Names and values, ordered by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl EnvironmentRule<'_> {
    /// Whether a variable of this name counts.
    #[must_use]
    pub fn counts(&self, name: &str) -> bool {
        let harmless = |pattern: &&str| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *pattern,
        };
        self.prefixes.iter().any(|prefix| name.starts_with(prefix))
            && !self.harmless.iter().any(harmless)
    }
}

/// Different bytes give different texts: the mark in front keeps escaped bytes apart from text that
/// looks like them.
fn text(text: &OsStr) -> String {
    match text.to_str() {
        Some(text) => text.to_owned(),
        None => format!("\u{0}{}", text.as_encoded_bytes().escape_ascii()),
    }
}
