//! The canonical bytes of a key: a sequence of leaves, each with its whole path, its kind and its
//! length, so that no two records are the same bytes.

use std::collections::BTreeMap;

use shapeyard_core::backend::Environment;
use shapeyard_core::model::Digest;

use super::{AxisKey, Key, ValueKey};

/// What stands at a path of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaf<'a> {
    Unset,
    Text(&'a str),
    Number(u64),
    Digest(&'a Digest),
    /// How many members a list or map has.
    Members(u64),
}

impl Leaf<'_> {
    const fn tag(self) -> u8 {
        match self {
            Self::Unset => 0,
            Self::Text(_) => 1,
            Self::Number(_) => 2,
            Self::Digest(_) => 3,
            Self::Members(_) => 4,
        }
    }

    /// What a person reads. How many members there are is left out: they say it themselves.
    pub(super) fn text(self) -> Option<String> {
        match self {
            Self::Members(_) => Some("set".to_owned()),
            Self::Unset => None,
            Self::Text(text) => Some(text.to_owned()),
            Self::Number(number) => Some(number.to_string()),
            Self::Digest(digest) => Some(digest.to_string()),
        }
    }
}

/// The digest of those top fields that `wanted` accepts.
pub(super) fn digest(key: &Key, context: &str, wanted: impl Fn(&str) -> bool) -> Digest {
    let mut bytes = Vec::with_capacity(1024);
    visit(key, &mut |path, leaf| {
        if path.first().is_some_and(|field| wanted(field)) {
            put_leaf(&mut bytes, path, leaf);
        }
    });
    crate::checksum::derived(context, &bytes)
}

fn put_leaf(bytes: &mut Vec<u8>, path: &[&str], leaf: Leaf<'_>) {
    put_number(bytes, path.len() as u64);
    for segment in path {
        put_bytes(bytes, segment.as_bytes());
    }
    bytes.push(leaf.tag());
    match leaf {
        Leaf::Unset => {}
        Leaf::Text(text) => put_bytes(bytes, text.as_bytes()),
        Leaf::Digest(digest) => put_bytes(bytes, digest.as_bytes()),
        Leaf::Number(number) | Leaf::Members(number) => put_number(bytes, number),
    }
}

fn put_number(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend_from_slice(&number.to_le_bytes());
}

fn put_bytes(bytes: &mut Vec<u8>, content: &[u8]) {
    put_number(bytes, content.len() as u64);
    bytes.extend_from_slice(content);
}

/// Every leaf of the record, in one order for all.
pub(super) fn visit<'a>(key: &'a Key, see: &mut dyn FnMut(&[&str], Leaf<'a>)) {
    // Destructured, so that a new field cannot be forgotten here.
    let Key {
        version,
        model,
        bucket,
        inputs,
        outputs,
        precision,
        calibration,
        options,
        backend,
        backend_version,
        compiler,
        library,
        driver,
        architecture,
        environment,
        extra,
    } = key;
    see(&["version"], Leaf::Number(u64::from(*version)));
    see(&["model"], Leaf::Digest(model));
    see(&["bucket"], Leaf::Members(bucket.iter().count() as u64));
    for (symbol, extent) in bucket.iter() {
        see(&["bucket", symbol], Leaf::Number(extent as u64));
    }
    visit_values("inputs", inputs, see);
    visit_values("outputs", outputs, see);
    see(&["precision"], optional_text(precision.as_deref()));
    see(&["calibration"], optional_digest(calibration.as_ref()));
    visit_map("options", Some(texts(options)), see);
    see(&["backend"], Leaf::Text(backend.as_str()));
    see(&["backend_version"], Leaf::Text(backend_version));
    see(&["compiler"], optional_text(compiler.as_deref()));
    see(&["library"], optional_digest(library.as_ref()));
    see(&["driver"], optional_text(driver.as_deref()));
    see(&["architecture"], optional_text(architecture.as_deref()));
    visit_map("environment", environment.as_ref().map(Environment::iter), see);
    visit_map("extra", Some(texts(extra)), see);
}

fn visit_values<'a>(
    field: &str,
    values: &'a BTreeMap<String, ValueKey>,
    see: &mut dyn FnMut(&[&str], Leaf<'a>),
) {
    see(&[field], Leaf::Members(values.len() as u64));
    for (name, value) in values {
        see(&[field, name, "dtype"], Leaf::Text(value.dtype.name()));
        visit_axes((field, name), value.axes.as_deref(), see);
    }
}

fn visit_axes<'a>(
    (field, name): (&str, &str),
    axes: Option<&'a [AxisKey]>,
    see: &mut dyn FnMut(&[&str], Leaf<'a>),
) {
    let Some(axes) = axes else {
        return see(&[field, name, "rank"], Leaf::Unset);
    };
    see(&[field, name, "rank"], Leaf::Number(axes.len() as u64));
    for (index, axis) in axes.iter().enumerate() {
        let leaf = match axis {
            AxisKey::Fixed(extent) => Leaf::Number(*extent),
            AxisKey::Symbol(name) => Leaf::Text(name),
            AxisKey::Unnamed => Leaf::Unset,
        };
        see(&[field, name, "axis", &index.to_string()], leaf);
    }
}

fn visit_map<'a>(
    field: &str,
    members: Option<impl ExactSizeIterator<Item = (&'a str, &'a str)>>,
    see: &mut dyn FnMut(&[&str], Leaf<'a>),
) {
    let Some(members) = members else {
        return see(&[field], Leaf::Unset);
    };
    see(&[field], Leaf::Members(members.len() as u64));
    for (name, value) in members {
        see(&[field, name], Leaf::Text(value));
    }
}

fn texts(map: &BTreeMap<String, String>) -> impl ExactSizeIterator<Item = (&str, &str)> {
    map.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

fn optional_text(text: Option<&str>) -> Leaf<'_> {
    text.map_or(Leaf::Unset, Leaf::Text)
}

fn optional_digest(digest: Option<&Digest>) -> Leaf<'_> {
    digest.map_or(Leaf::Unset, Leaf::Digest)
}
